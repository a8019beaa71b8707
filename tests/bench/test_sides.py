"""Times and rates of completions."""

from __future__ import annotations

import pytest

from gptoss_mlx.bench.sides import Completion, rate_together


def _completion(*times: float) -> Completion:
    return Completion(list(range(len(times))), list(times), started=times[0] - 2)


def test_the_first_token_belongs_to_the_prompt() -> None:
    """Its time is its own figure, and it does not count as decoded."""
    completion = _completion(3.0, 4.0, 5.0, 7.0)
    assert completion.first == 2
    assert completion.rate == pytest.approx(3 / 4)


def test_together() -> None:
    """Ids count while all decode, at the rates of each."""
    early, late = _completion(1.0, 2.0, 3.0, 4.0), _completion(2.5, 3.5, 4.5)
    assert rate_together([early, late]) == pytest.approx(2)
    assert rate_together([early]) == pytest.approx(1)
    slow = _completion(2.5, 4.5, 6.5)
    assert rate_together([_completion(2.0, 3.0, 4.0, 5.0, 6.0), slow]) == pytest.approx(1.5)


@pytest.mark.parametrize("batch", [1, 2, 8])
@pytest.mark.parametrize("tokens", [3, 4, 16])
@pytest.mark.parametrize("spare", [0, 5])
def test_who_ends_first_is_no_matter(batch: int, tokens: int, spare: int) -> None:
    """Steps of the same length give the same rate, in whatever order and number their ids come."""
    lengths = [tokens + spare * (batch - n) for n in range(batch)]
    completions = [
        _completion(*(step + n * 1e-6 for step in range(1, length + 1)))
        for n, length in enumerate(lengths)
    ]
    assert rate_together(completions) == pytest.approx(batch, rel=1e-4)
    assert rate_together(completions[::-1]) == pytest.approx(batch, rel=1e-4)


def test_never_together() -> None:
    """One ends before the other begins: no rate."""
    assert rate_together([_completion(1.0, 2.0), _completion(3.0, 4.0)]) is None
