"""What can be measured: a side completes prompts, and says when each id came.

It knows neither MLX nor what the sides are made of.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, get_args

__all__ = ["SIDES", "Completion", "Ids", "Side", "SideName", "rate_together"]

SideName = Literal["gptoss-mlx", "mlx-lm"]
SIDES: tuple[SideName, ...] = get_args(SideName)  # ours first
Ids = Sequence[int]


@dataclass
class Completion:
    """The ids of one sequence, and when each came.

    cached: of the prompt's ids, those that needed no computing.
    """

    ids: list[int] = field(default_factory=list[int])
    times: list[float] = field(default_factory=list[float])
    cached: int = 0
    started: float = field(default_factory=time.perf_counter)

    def add(self, token: int) -> None:
        """An id comes now."""
        self.ids.append(token)
        self.times.append(time.perf_counter())

    @property
    def first(self) -> float:
        """Seconds until the first id."""
        return self.times[0] - self.started

    @property
    def rate(self) -> float:
        """Ids a second after the first, which the prompt gave."""
        return (len(self.ids) - 1) / (self.times[-1] - self.times[0])


class Side(Protocol):
    """A model in memory. It decodes greedily, and nothing that it says ends it.

    dtype: that it computes in. kernels: which of our own serve, if there can be any.
    """

    dtype: str
    kernels: str

    def converse(self, prompt: Ids, tokens: int, turn: Ids) -> tuple[Completion, Completion]:
        """A prompt of which nothing is cached; and one token more after prompt, answer and turn."""
        ...

    def batch(self, prompts: Sequence[Ids], tokens: int) -> list[Completion]:
        """Prompts of which nothing is cached, all at once, until each has so many ids or more."""
        ...


def rate_together(completions: Sequence[Completion]) -> float | None:
    """Ids a second of all sequences while all decode; None if there is no such time.

    Each sequence's own rate over as many ids of it, the first that comes once all have begun being
    left out; their sum. So it does not matter in which order the ids of one step arrive.
    """
    start = max(completion.times[0] for completion in completions)
    together = [[t for t in completion.times if t >= start] for completion in completions]
    steps = min(map(len, together)) - 1
    if steps < 1:
        return None
    return sum(steps / (times[steps] - times[0]) for times in together)
