"""Ids in, ids out: prefill a prompt in chunks, then decode token by token.

One request at a time. It knows nothing of text, harmony or tools: which ids stop it is its caller's
choice, and the stop id is the last one it gives.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import mlx.core as mx

from gptoss_mlx.cache import Cache
from gptoss_mlx.config import SamplingParams
from gptoss_mlx.errors import ContextLengthError, UsageError
from gptoss_mlx.model import Model
from gptoss_mlx.sampler import sample

__all__ = ["Engine", "Generation", "GenerationStats", "OnPrefill"]

OnPrefill = Callable[[int, int], object]  # prompt tokens done, prompt tokens in all

# Tokens of a prompt that go through the layers together: enough that each expert sees many, few
# enough that what several layers hold at once is small beside the weights.
_PREFILL_CHUNK = 512


@dataclass
class GenerationStats:
    """Counts and times of one generation, filled in as it goes."""

    prompt_tokens: int
    completion_tokens: int = 0
    prefill_seconds: float = 0.0
    decode_seconds: float = 0.0

    @property
    def prefill_rate(self) -> float:
        """Prompt tokens a second."""
        return self.prompt_tokens / self.prefill_seconds if self.prefill_seconds else 0.0

    @property
    def decode_rate(self) -> float:
        """Tokens a second after the first, which the prefill gave."""
        return (self.completion_tokens - 1) / self.decode_seconds if self.decode_seconds else 0.0


class Generation:
    """An iterator over the ids of one completion; `stats` tells how far and how fast."""

    def __init__(self, ids: Iterator[int], stats: GenerationStats) -> None:
        self._ids = ids
        self.stats = stats

    def __iter__(self) -> Iterator[int]:
        """The ids, as they are drawn."""
        return self._ids


class Engine:
    """A model, and how its prompts are cut up."""

    def __init__(self, model: Model, *, prefill_chunk: int = _PREFILL_CHUNK) -> None:
        self.model = model
        self.prefill_chunk = prefill_chunk

    def generate(
        self,
        prompt: Sequence[int],
        params: SamplingParams | None = None,
        stop: Container[int] = (),
        on_prefill: OnPrefill | None = None,
    ) -> Generation:
        """Start a completion; nothing is computed before its first id is asked for.

        Args:
            prompt: at least one id.
            params: how to draw; OpenAI's recommendation by default.
            stop: ids that end it; the one that does is given, too.
            on_prefill: called with (prompt tokens done, prompt tokens in all), first with 0 done
                and then after each chunk.

        Raises:
            ContextLengthError: the prompt leaves no room for an answer.
            UsageError: the prompt is empty, or holds an id outside the vocabulary.
        """
        self._check(prompt)
        stats = GenerationStats(prompt_tokens=len(prompt))
        params = params or SamplingParams()
        return Generation(self._ids(list(prompt), params, stop, stats, on_prefill), stats)

    def _check(self, prompt: Sequence[int]) -> None:
        config = self.model.config
        if not prompt or min(prompt) < 0 or max(prompt) >= config.vocab_size:
            raise UsageError(f"a prompt needs ids, all in 0..{config.vocab_size - 1}")
        if len(prompt) >= config.max_context_length:
            raise ContextLengthError(
                f"the prompt has {len(prompt):,} tokens, "
                f"and the model's context holds {config.max_context_length:,}: shorten it"
            )

    def _ids(
        self,
        prompt: list[int],
        params: SamplingParams,
        stop: Container[int],
        stats: GenerationStats,
        on_prefill: OnPrefill | None,
    ) -> Iterator[int]:
        room = self.model.config.max_context_length - len(prompt)
        budget = room if params.max_tokens is None else min(room, params.max_tokens)
        if budget <= 0:
            return
        started = time.perf_counter()
        cache = self.model.new_cache()
        logits = self._prefill(prompt, cache, on_prefill or _ignore)
        key = mx.random.key(params.seed if params.seed is not None else time.time_ns())
        for token in self._decode(logits, cache, params, key):
            now = time.perf_counter()
            if stats.completion_tokens == 0:
                stats.prefill_seconds, started = now - started, now
            stats.completion_tokens += 1
            stats.decode_seconds = now - started
            yield token
            if token in stop or stats.completion_tokens == budget:
                return

    def _prefill(self, prompt: list[int], cache: Cache, on_prefill: OnPrefill) -> mx.array:
        """Put a prompt into the cache by chunks; returns its last token's logits (1, V)."""
        ids = mx.array(prompt)[None]
        hidden = None
        on_prefill(0, len(prompt))
        for start in range(0, len(prompt), self.prefill_chunk):
            hidden = self.model.hidden_states(ids[:, start : start + self.prefill_chunk], cache)
            mx.eval(cache.arrays)
            on_prefill(cache.offset, len(prompt))
        assert hidden is not None
        return self.model.logits(hidden[:, -1])

    def _decode(
        self, logits: mx.array, cache: Cache, params: SamplingParams, key: mx.array
    ) -> Iterator[int]:
        """Ids without end; each next step is submitted before this one's id is waited for."""
        key, now = mx.random.split(key)
        token = sample(logits, params, now)  # (1,)
        mx.async_eval(token)
        while True:
            logits = self.model.logits(self.model.hidden_states(token[None], cache)[:, -1])
            key, now = mx.random.split(key)
            following = sample(logits, params, now)
            mx.async_eval(following)
            yield cast("int", token.item())
            token = following


def _ignore(*_: int) -> None:
    """Whoever starts a generation need not watch its prefill."""
