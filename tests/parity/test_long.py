"""Long prompts: whole, in chunks, in a batch and from shared prefixes, the same logits.

Up to 4,097 tokens always; 32,768 too where GPTOSS_MLX_LONG=1 is set, since that takes minutes. One
model serves all lengths, and shorter prompts are the beginning of the longest. So the logits of one
pass, which knows no cache, are what every other way is held against, at some positions.
"""

from __future__ import annotations

import os
from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest
from numpy.typing import NDArray

from gptoss_mlx.cache import Cache
from gptoss_mlx.model import Model, load_model
from gptoss_mlx.prefix import PrefixCache

from .checkpoints import CASES, Case, CheckpointOf
from .comparison import MAX_DIFFERENCE

pytestmark = pytest.mark.slow

_LENGTHS = [64, 129, 4097, *([32_768] if os.environ.get("GPTOSS_MLX_LONG") == "1" else [])]
_CASE = Case(  # half the size of the suite's smallest, so that 4,097 tokens take seconds
    "long",
    replace(
        CASES["few-heads-4097-tokens"].config,
        num_hidden_layers=2,
        num_experts=8,
        hidden_size=64,
        intermediate_size=64,
    ),
    seed=1,
    tokens=max(_LENGTHS),
)
_STEPS = 8  # tokens whose logits are compared
_CHUNK = 512
_LARGEST_PASS = 8192  # tokens; more would take gigabytes of attention scores on a CPU
_GENEROUS = 1 << 30

Logits = NDArray[np.float32]  # (T, V)


class Long:
    """A model, a prompt, and the hidden states that one pass gives for it."""

    def __init__(self, model: Model, tokens: list[int]) -> None:
        self.model, self.tokens = model, tokens
        cache = [] if len(tokens) <= _LARGEST_PASS else [model.new_cache()]
        passes: list[mx.array] = []
        for start in range(0, len(tokens), _LARGEST_PASS):
            passes.append(model.hidden_states(self.ids(start, start + _LARGEST_PASS), *cache))
            mx.eval(passes[-1])
        self._hidden = mx.concatenate(passes, axis=1)

    def ids(self, start: int, end: int) -> mx.array:
        """Part of the prompt, (1, T)."""
        return mx.array(self.tokens[start:end])[None]

    def expected(self, start: int, end: int) -> Logits:
        """The one pass's logits at some positions."""
        return _array(self.model.logits(self._hidden[0, start:end]))


@pytest.fixture(scope="module", params=_LENGTHS)
def long(request: pytest.FixtureRequest, checkpoint_of: CheckpointOf) -> Long:
    """A prompt of some length."""
    model = load_model(checkpoint_of(_CASE).mlx, mx.float32)
    return Long(model, [int(i) for i in replace(_CASE, tokens=request.param).ids])


def test_chunks(long: Long) -> None:
    """A prompt that goes through the layers a chunk at a time."""
    T, cache = len(long.tokens), long.model.new_cache()
    end = T - _STEPS
    _feed(long, cache, end)
    _assert_same(_array(long.model(long.ids(end, T), cache)[0]), long.expected(end, T))


def test_rows_of_a_batch(long: Long) -> None:
    """Sequences at three different positions, decoded together a token at a time."""
    T = len(long.tokens)
    starts = [T - _STEPS, T // 2, 5]
    caches = [long.model.new_cache() for _ in starts]
    for start, cache in zip(starts, caches, strict=True):
        _feed(long, cache, start)
    steps: list[mx.array] = []
    for n in range(_STEPS):
        ids = mx.concatenate([long.ids(start + n, start + n + 1) for start in starts])
        steps.append(long.model.logits(long.model.hidden_states(ids, *caches)[:, 0]))
    rows = np.stack([_array(step) for step in steps], axis=1)  # (B, T, V)
    for start, row in zip(starts, rows, strict=True):
        _assert_same(row, long.expected(start, start + _STEPS))


def test_shared_prefixes(long: Long) -> None:
    """A prompt that goes on from others: one that has ended, and one that still runs."""
    T, tokens = len(long.tokens), long.tokens
    third, most = T // 3, T - _STEPS - 3
    prefix = PrefixCache(long.model.config, _GENEROUS, long.model.dtype)
    first = prefix.lease(tokens)
    _feed(long, first.cache, third)
    first.commit(tokens, [third])
    other = prefix.lease([*tokens[:third], 0, 1, 2])  # `first` goes on in a segment of its own
    long.model.hidden_states(mx.array([[0, 1, 2]]), other.cache)
    _feed(long, first.cache, most)
    first.release(tokens[:most])
    lease = prefix.lease(tokens)
    assert (other.reused, lease.reused) == (third, most)
    end = T - _STEPS
    _feed(long, lease.cache, end)
    _assert_same(_array(long.model(long.ids(end, T), lease.cache)[0]), long.expected(end, T))
    again = prefix.lease([*tokens[:third], tokens[third]])
    assert again.reused == third
    logits = long.model(long.ids(third, third + 1), again.cache)[0]
    _assert_same(_array(logits), long.expected(third, third + 1))


def _feed(long: Long, cache: Cache, end: int) -> None:
    """Put the prompt into a cache, from where it is up to a position."""
    while cache.offset < end:
        ids = long.ids(cache.offset, min(cache.offset + _CHUNK, end))
        long.model.hidden_states(ids, cache)
        mx.eval(cache.arrays)


def _array(x: mx.array) -> Logits:
    return np.asarray(x, dtype=np.float32)


def _assert_same(logits: Logits, expected: Logits) -> None:
    difference = float(np.abs(logits - expected).max())
    assert difference <= MAX_DIFFERENCE
    assert (logits.argmax(axis=-1) == expected.argmax(axis=-1)).all()
