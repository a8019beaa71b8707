"""One request, and how far it has come. Data only; who changes it is the engine and its thread.

It does not know the model, the cache or how requests are ordered.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Container
from collections.abc import Sequence as Ids
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

from gptoss_mlx.config import SamplingParams

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = [
    "Constraint",
    "FinishReason",
    "GenerationStats",
    "Request",
    "Sequence",
    "SpeculationMode",
    "Token",
    "common_prefix",
]

_BLOCK = 1024  # ids that are compared at once
FinishReason = Literal["stop", "length", "cancelled", "error"]
SpeculationMode = Literal["off", "on", "auto"]


class Constraint(Protocol):
    """Which ids may come next: a grammar's state, of one completion."""

    def mask(self) -> NDArray[np.uint32] | None:
        """(ceil(V / 32),): bit j of word i allows id 32 i + j. None: every id is allowed."""
        ...

    def forced(self) -> list[int]:
        """Ids that must come next, one after the other; none if there is a choice."""
        ...

    def advance(self, token: int) -> None:
        """The completion has grown by this id."""
        ...


@dataclass(frozen=True)
class Request:
    """What is asked of the engine.

    prompt: ids, at least one. params: how to draw. stop: ids that end the completion, of which the
    one that does is its last. boundaries: ids that begin a message; prompts to come are likely to
    differ from this one where such a message begins. constraint: restricts what is drawn.
    timeout: seconds from now after which the completion ends in an error, or None.
    """

    prompt: tuple[int, ...] = field(repr=False)  # a log must not hold what somebody said
    params: SamplingParams = field(default_factory=SamplingParams)
    stop: Container[int] = ()
    boundaries: frozenset[int] = frozenset()
    constraint: Constraint | None = None
    speculation: SpeculationMode = "off"
    timeout: float | None = None


@dataclass(frozen=True)
class Token:
    """An id that was drawn; with its log-probabilities if they were asked for.

    logprob: of the id. top_logprobs: (id, log-probability) of the likeliest ids, likeliest first.
    Both are the model's own, before bias, penalties, mask and temperature.
    """

    id: int
    logprob: float | None = None
    top_logprobs: tuple[tuple[int, float], ...] = ()


@dataclass
class GenerationStats:
    """Counts and times of one generation, filled in as it goes.

    Seconds: waiting until the prefill began, prefill until the first token, decode after it.
    drafted and accepted: tokens of speculative steps.
    """

    prompt_tokens: int
    cached_tokens: int = 0
    completion_tokens: int = 0
    queue_seconds: float = 0.0
    prefill_seconds: float = 0.0
    decode_seconds: float = 0.0
    drafted_tokens: int = 0
    accepted_tokens: int = 0

    @property
    def prefill_rate(self) -> float:
        """Prompt tokens a second, of those that were not cached."""
        computed = self.prompt_tokens - self.cached_tokens
        return computed / self.prefill_seconds if self.prefill_seconds else 0.0

    @property
    def decode_rate(self) -> float:
        """Tokens a second after the first, which the prefill gave."""
        return (self.completion_tokens - 1) / self.decode_seconds if self.decode_seconds else 0.0


Events = queue.SimpleQueue[Token | tuple[int, int] | None]


@dataclass(eq=False, repr=False)
class Sequence:
    """A request under way.

    tokens: of the prompt, and those drawn. events: what its consumer reads: tokens, (prompt tokens
    computed, in all) after each chunk of the prefill, and None at the end. on_end: told of the end,
    once, by whatever thread it comes about in.
    """

    request: Request
    seed: int
    max_tokens: int
    tokens: list[int]
    stats: GenerationStats
    events: Events = field(default_factory=queue.SimpleQueue["Token | tuple[int, int] | None"])
    submitted: float = field(default_factory=time.perf_counter)
    started: float | None = None  # of its prefill
    answered: float | None = None  # with its first token
    computed: int = 0  # tokens of the prefill under way that the cache holds
    is_suspect: bool = False  # it has to show alone that it is not what made a step fail
    is_cancelled: bool = False  # set by any thread, seen at the next step
    finish_reason: FinishReason | None = None
    error: Exception | None = None
    on_end: Callable[[Sequence], object] | None = None

    def end(self, reason: FinishReason, error: Exception | None = None) -> None:
        """Nothing more will come; its consumer hears of it."""
        self.error, self.finish_reason = error, reason
        if self.on_end is not None:
            self.on_end(self)
        self.events.put(None)

    @property
    def has_ended(self) -> bool:
        """Whether nothing more will come."""
        return self.finish_reason is not None

    @property
    def num_drawn(self) -> int:
        """Tokens of the completion."""
        return len(self.tokens) - len(self.request.prompt)

    @property
    def deadline(self) -> float:
        """When it ends in an error, on the clock of time.perf_counter."""
        timeout = self.request.timeout
        return float("inf") if timeout is None else self.submitted + timeout


def common_prefix(a: Ids[int], b: Ids[int]) -> int:
    """How many ids both begin with."""
    n = min(len(a), len(b))
    start = next((i for i in range(0, n, _BLOCK) if a[i : i + _BLOCK] != b[i : i + _BLOCK]), n)
    pairs = zip(a[start : start + _BLOCK], b[start : start + _BLOCK], strict=False)
    return start + next((i for i, (x, y) in enumerate(pairs) if x != y), n - start)
