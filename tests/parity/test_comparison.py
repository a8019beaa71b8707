"""What the verdict accepts and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from .comparison import MAX_DIFFERENCE, Expected, assert_parity, compare


@pytest.fixture
def logits() -> NDArray[np.float32]:
    """Logits (T, V) without ties, the top-1 and its runner-up 0.01 apart."""
    values = np.random.default_rng(0).normal(0, 3, (40, 50)).astype(np.float32)
    values[:, 7], values[:, 8] = 20, 19.99
    return values


def test_equal_logits_are_parity(logits: NDArray[np.float32]) -> None:
    """Logits equal themselves."""
    assert_parity(logits, Expected.of(logits))


def test_the_largest_difference_is_bounded(logits: NDArray[np.float32]) -> None:
    """One logit out of bounds is seen, and its position named."""
    other = logits.copy()
    other[11, 3] += 2 * MAX_DIFFERENCE
    assert compare(other, Expected.of(logits)).first_position == 11
    with pytest.raises(AssertionError, match="first at position 11"):
        assert_parity(other, Expected.of(logits))


def test_small_differences_everywhere_are_seen(logits: NDArray[np.float32]) -> None:
    """A difference far below the bound of a single logit is too much when every logit has it."""
    with pytest.raises(AssertionError, match=r"no parity: relative RMS 2e-05$"):
        assert_parity(logits + np.float32(1e-4), Expected.of(logits))


def test_the_top1_is_compared_at_every_position(logits: NDArray[np.float32]) -> None:
    """Another top-1 is seen at a position whose logits are not kept."""
    other = logits.copy()
    other[5, 8] = 20.01
    kept = np.array([0, 39])
    with pytest.raises(AssertionError, match=r"no parity: same top-1 at 97\.50%"):
        assert_parity(other, Expected.of(logits, positions=kept))


def test_exact_ties_may_fall_either_way(logits: NDArray[np.float32]) -> None:
    """Where two logits of the reference are equal and largest, either may be the top-1."""
    logits[5, 8] = logits[5, 7]
    for winner in (7, 8):
        other = logits.copy()
        other[5, winner] += np.float32(1e-5)
        assert_parity(other, Expected.of(logits))


def test_nan_is_not_parity(logits: NDArray[np.float32]) -> None:
    """Logits that are not numbers fail, although no comparison with them holds."""
    other = logits.copy()
    other[20:, 5] = np.nan
    with pytest.raises(AssertionError, match="largest difference nan, first at position 20"):
        assert_parity(other, Expected.of(logits))
