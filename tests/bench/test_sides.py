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
    """Ids count while all decode: after the last first one, until the first last one."""
    early, late = _completion(1.0, 2.0, 3.0, 4.0), _completion(2.5, 3.5, 4.5)
    assert rate_together([early, late]) == pytest.approx(3 / 1.5)
    assert rate_together([early]) == pytest.approx(1)


def test_never_together() -> None:
    """One ends before the other begins: no rate."""
    assert rate_together([_completion(1.0, 2.0), _completion(3.0, 4.0)]) is None
