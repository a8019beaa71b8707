"""Sampling against plain numpy, and the frequencies of many draws."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest
from helpers import array
from numpy.typing import NDArray

from gptoss_mlx.config import SamplingParams
from gptoss_mlx.sampler import keep_top_p, sample

LOGITS = np.log([0.05, 0.4, 0.1, 0.25, 0.2])
DRAWS = 20_000


def numpy_top_p(row: NDArray[np.float64], top_p: float) -> set[int]:
    """The likeliest ids, one after the other until they have the probability; never none."""
    probabilities = np.exp(row) / np.exp(row).sum()
    kept: set[int] = set()
    for i in np.argsort(-row):
        if kept and sum(probabilities[list(kept)]) >= top_p:
            break
        kept.add(int(i))
    return kept


def draws(params: SamplingParams, seed: int = 0) -> NDArray[np.int64]:
    """Many ids drawn from LOGITS at once."""
    rows = mx.broadcast_to(mx.array(LOGITS, mx.float32), (DRAWS, len(LOGITS)))
    return np.array(sample(rows, params, mx.random.key(seed))).astype(np.int64)


@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16])
@pytest.mark.parametrize("top_p", [1.0, 0.1])
def test_temperature_zero_is_greedy(dtype: mx.Dtype, top_p: float) -> None:
    """The largest logit of each row wins, whatever the key and the rest of the parameters."""
    logits = mx.random.normal((7, 50), key=mx.random.key(1)).astype(dtype)
    for seed in range(3):
        ids = sample(logits, SamplingParams(0.0, top_p, seed=9), mx.random.key(seed))
        assert np.array(ids).tolist() == array(logits).argmax(axis=-1).tolist()


@pytest.mark.parametrize("top_p", [1e-9, 0.01, 0.3, 0.5, 0.9, 0.999])
def test_keep_top_p_is_the_definition(top_p: float) -> None:
    """The ids kept are those of the definition, their logits unchanged and all others -inf."""
    logits = np.random.default_rng(0).normal(scale=2, size=(20, 100)).astype(np.float32)
    kept = array(keep_top_p(mx.array(logits), top_p))
    for row, found in zip(logits, kept, strict=True):
        expected = numpy_top_p(row.astype(np.float64), top_p)
        assert set(np.flatnonzero(np.isfinite(found)).tolist()) == expected
        assert np.isneginf(np.delete(found, list(expected))).all()
        np.testing.assert_array_equal(found[list(expected)], row[list(expected)])


def test_the_id_that_crosses_the_bound_stays() -> None:
    """0.4 + 0.25 is not yet 0.7, so the third likeliest is kept, too; a tiny top_p keeps one."""
    kept = [np.isfinite(array(keep_top_p(mx.array(LOGITS), p))).tolist() for p in (0.7, 1e-6)]
    assert kept == [[False, True, False, True, True], [False, True, False, False, False]]


@pytest.mark.parametrize(
    ("params", "probabilities"),
    [
        pytest.param(SamplingParams(), [0.05, 0.4, 0.1, 0.25, 0.2], id="as they are"),
        pytest.param(SamplingParams(0.5), [0.0025, 0.16, 0.01, 0.0625, 0.04], id="colder"),
        pytest.param(SamplingParams(2.0), np.sqrt([0.05, 0.4, 0.1, 0.25, 0.2]), id="hotter"),
        pytest.param(SamplingParams(top_p=0.6), [0, 0.4, 0, 0.25, 0], id="nucleus"),
        pytest.param(SamplingParams(2.0, 0.4), np.sqrt([0, 0.4, 0, 0.25, 0]), id="both"),
    ],
)
def test_frequencies(params: SamplingParams, probabilities: NDArray[np.float64]) -> None:
    """Draws have the frequencies that temperature and top_p define (chi-square, p > 0.001)."""
    expected = np.array(probabilities) / np.sum(probabilities) * DRAWS
    counts = np.bincount(draws(params), minlength=len(LOGITS))
    possible = expected > 0
    assert (counts[~possible] == 0).all()
    chi_square = ((counts - expected)[possible] ** 2 / expected[possible]).sum()
    assert chi_square < 18.5  # 4 degrees of freedom


def test_a_key_repeats_its_draws() -> None:
    """The same key gives the same ids, another key others."""
    first, again, other = (draws(SamplingParams(), seed) for seed in (3, 3, 4))
    assert first.tolist() == again.tolist()
    assert first.tolist() != other.tolist()


def test_without_a_key_draws_go_on() -> None:
    """MLX's global state advances, and its seed repeats it."""
    logits = mx.zeros((64, 1000))
    mx.random.seed(5)
    first, second = (np.array(sample(logits, SamplingParams())).tolist() for _ in range(2))
    mx.random.seed(5)
    assert np.array(sample(logits, SamplingParams())).tolist() == first != second


def test_an_impossible_id_is_never_drawn() -> None:
    """A logit of -inf has no probability, at any temperature."""
    logits = mx.array([[0.0, -np.inf, 0.0, -np.inf]] * 500)
    ids = sample(logits, SamplingParams(5.0, 0.99), mx.random.key(0))
    assert set(np.array(ids).tolist()) == {0, 2}
