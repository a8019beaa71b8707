"""What engine tests need to make things go wrong, and to see what is left afterwards.

A model that fails, constraints, and counts of live objects. It does not know what is tested.
"""

from __future__ import annotations

import gc
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from gptoss_mlx.cache import Cache
from gptoss_mlx.model import Model

__all__ = ["NOT_A_NUMBER", "POISON", "Faulty", "Killed", "Only", "live_objects", "settled"]

POISON, NOT_A_NUMBER = 251, 252  # ids; with one of them in a step it goes wrong
NAMES = (
    "Sequence",
    "Generation",
    "Lease",
    "Cache",
    "Segment",
    "Branch",
    "_Active",
    "_Step",
    "Place",
)


class Only:
    """A constraint: only these ids, in any order; or, as a script, each in its turn."""

    def __init__(self, ids: Sequence[int], vocab_size: int, *, is_script: bool = False) -> None:
        self._ids, self._vocab_size, self._is_script = list(ids), vocab_size, is_script
        self.advanced = 0

    def mask(self) -> NDArray[np.uint32]:
        """One bit an id."""
        allowed = self._ids
        if self._is_script:
            allowed = [allowed[self.advanced % len(allowed)]]
        bits = np.zeros(-(-self._vocab_size // 32) * 32, np.uint32)
        bits[allowed] = 1
        return (bits.reshape(-1, 32) << np.arange(32, dtype=np.uint32)).sum(1).astype(np.uint32)

    def forced(self) -> list[int]:
        """What the script has next, if it is a script and this is an even place in it."""
        if not self._is_script or self.advanced % 2:
            return []
        return [self._ids[(self.advanced + i) % len(self._ids)] for i in range(2)]

    def advance(self, token: int) -> None:
        """Count it, if it was allowed."""
        assert self.mask()[token // 32] >> (token % 32) & 1, f"id {token} was not allowed"
        self.advanced += 1


class Killed(BaseException):
    """No step survives it, and no thread."""


class Faulty(Model):
    """A model that fails: at random, and whenever certain ids are fed.

    Args:
        inner: what it is otherwise.
        seed: of its failures.
        rate: how likely a step is to fail, in each of two ways.
        deaths: how likely it is to kill the thread.
    """

    def __init__(self, inner: Model, seed: int, rate: float = 0.0, deaths: float = 0.0) -> None:
        self.config, self.dtype = inner.config, inner.dtype
        self.inner, self.rate, self.deaths = inner, rate, deaths
        self.counts: Counter[str] = Counter()
        self._random = random.Random(seed)

    def hidden_states(self, ids: mx.array, *caches: Cache) -> mx.array:
        """(B, T) -> (B, T, H), or what goes wrong."""
        self.counts["steps"] += 1
        self.counts["computed"] += ids.size
        draw = self._random.random()
        if draw < self.deaths:
            self.counts["deaths"] += 1
            raise Killed
        if draw < self.deaths + self.rate:
            self._fail("before")
        if draw < self.deaths + 2 * self.rate:
            self._append_some(caches)
            self._fail("half-way")
        hidden = self.inner.hidden_states(ids, *caches)
        if (ids == POISON).any():
            self._fail("poison")
        is_bad = (ids == NOT_A_NUMBER)[:, :, None]
        return mx.where(is_bad, mx.nan, hidden)

    def logits(self, x: mx.array) -> mx.array:
        """The inner model's."""
        return self.inner.logits(x)

    def _fail(self, how: str) -> None:
        self.counts[how] += 1
        raise RuntimeError(f"injected: {how}")

    def _append_some(self, caches: Sequence[Cache]) -> None:
        """Leave the first cache's layers with different lengths."""
        config = self.config
        junk = mx.full((1, config.num_key_value_heads, 3, config.head_dim), 1e3, self.dtype)
        caches[0].layers[-1].append(junk, junk)


def live_objects() -> Counter[str]:
    """How many of the engine's objects there are, by class."""
    gc.collect()
    kinds: list[type[object]] = [type(o) for o in gc.get_objects()]
    return Counter(
        kind.__name__
        for kind in kinds
        if kind.__name__ in NAMES and kind.__module__.startswith("gptoss_mlx")
    )


def settled(condition: Callable[[], bool], seconds: float = 10.0) -> bool:
    """Whether it becomes true within that time."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.005)
    return True
