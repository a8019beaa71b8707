"""Logits -> ids: the next token of every row of a batch, drawn on device and waited for by nobody.

    bias -> penalties -> mask -> temperature -> top_k -> top_p -> min_p -> noise -> argmax

The mask stands before whatever keeps the likeliest, so that an allowed id always survives. What no
row of the batch asks for is not computed. It does not know tokens' texts, what a mask stands for,
or who may stop when.
"""

from __future__ import annotations

import functools
import hashlib
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import mlx.core as mx
import numpy as np

from gptoss_mlx.config import SamplingParams
from gptoss_mlx.errors import UsageError

__all__ = [
    "Draw",
    "Row",
    "Sampler",
    "gumbel",
    "keep_allowed",
    "keep_likeliest",
    "keep_min_p",
    "penalize",
]

_COLDEST = 1e-5  # below, logits / temperature may overflow, and the likeliest wins anyway
_SMALLEST_UNIFORM = 2.0**-33  # half the step of MLX's uniform numbers, so that no noise is infinite
_PENALTY = ("counts", "in_prompt", "repetition", "presence", "frequency")
_Arrays = dict[str, mx.array]


class Row:
    """What one request's draws need, and keep when the batch around it changes.

    Args:
        params: how to draw; its own seed is not looked at.
        seed: 0..2^64 - 1. With a position it decides the noise, whatever else runs.
        prompt: the ids that a repetition penalty covers beside those drawn.
        vocab_size: V.
        drawn: the ids drawn so far, for a request that goes on.

    Raises:
        UsageError: a logit_bias for an id outside the vocabulary.
    """

    def __init__(
        self,
        params: SamplingParams,
        seed: int,
        prompt: Sequence[int],
        vocab_size: int,
        drawn: Sequence[int] = (),
    ) -> None:
        self.params = params
        self.seed = seed
        self.vocab_size = vocab_size
        self.bias = _bias(params, vocab_size) if params.logit_bias else None  # (V,)
        self.in_prompt: mx.array | None = None  # (V,) bool
        self.counts: mx.array | None = None  # (V,) how often each id was drawn
        if not self.is_memoryless:
            self.in_prompt = mx.zeros((vocab_size,), mx.bool_)
            self.in_prompt[mx.array(list(prompt), mx.int32)] = True
            self.counts = mx.array(np.bincount([*drawn], minlength=vocab_size), mx.float32)

    @property
    def is_memoryless(self) -> bool:
        """Whether ids drawn before have no part in the next: no penalty is asked for.

        Only then may several positions be drawn at once (see `Sampler`).
        """
        params = self.params
        return params.repetition_penalty == 1 and not (
            params.presence_penalty or params.frequency_penalty
        )

    def key(self, position: int) -> bytes:
        """The 8 bytes of the random key that belongs to this position of the sequence."""
        return hashlib.blake2b(struct.pack("<QQ", self.seed, position), digest_size=8).digest()


@dataclass(frozen=True)
class Draw:
    """One id a row, none of it evaluated yet.

    Log-probabilities are the model's own, of its logits as they came: before bias, penalties,
    mask, temperature and the rest. n is the most likeliest ids that any row asks for; what nobody
    asks for is None.
    """

    ids: mx.array  # (B,)
    is_number: mx.array  # (B,) bool: no logit of the row, as it came, is NaN; if one is, id is junk
    logprobs: mx.array | None = None  # (B,) of the ids drawn
    top_ids: mx.array | None = None  # (B, n) the likeliest ids, likeliest first
    top_logprobs: mx.array | None = None  # (B, n)

    @property
    def arrays(self) -> list[mx.array]:
        """All that is there, to be evaluated together."""
        found = (self.ids, self.is_number, self.logprobs, self.top_ids, self.top_logprobs)
        return [array for array in found if array is not None]


class Sampler:
    """Draws for the rows of a batch; made anew, which is cheap, when they change.

    A row draws the same from the same logits at the same position, bit for bit, whatever other
    rows stand beside it. A sampler of one row may be given T rows of logits and T positions: the
    next tokens of several prefixes of one sequence. That takes a memoryless row, and so does a row
    that occurs in `rows` more than once.

    Args:
        rows: one for each row of logits.
        compiled: whether MLX fuses the steps; by default where there is a GPU. On its CPU backend
            that calls a C++ compiler at run time, and most of it gets slower.
    """

    def __init__(self, rows: Sequence[Row], *, compiled: bool | None = None) -> None:
        self._rows = list(rows)
        with_memory = {id(row) for row in rows if not row.is_memoryless}
        assert len(with_memory) == sum(not row.is_memoryless for row in rows), "a row twice"
        self._is_memoryless = not with_memory
        wanted = [row.params.logprobs for row in rows if row.params.logprobs is not None]
        self._num_top = min(max(wanted), rows[0].vocab_size) if wanted else None
        self._is_random = any(row.params.temperature >= _COLDEST for row in rows)
        self._given = _settings(self._rows)
        self._compiled = mx.default_device() == mx.gpu if compiled is None else compiled

    def __call__(
        self, logits: mx.array, positions: Sequence[int], mask: mx.array | None = None
    ) -> Draw:
        """Draw one id a row; rows with penalties take note of theirs.

        Args:
            logits: (B, V).
            positions: B numbers; a request that repeats one meets the same noise again.
            mask: (B, ceil(V / 32)) of 32 bits; bit j of word i allows id 32 i + j. It must allow
                one id of each row that has a logit above -inf, else the id drawn is junk.
        """
        assert len(positions) == len(logits)
        if len(positions) != len(self._rows):
            assert len(self._rows) == 1, "one position a row, where there are several"
            assert self._is_memoryless, "with penalties, one position at a time"
        given = dict(self._given)
        if self._is_random:
            given["keys"] = self._keys(positions)
        if mask is not None:
            given["mask"] = mask.view(mx.uint32)
        drawn = _step(self._num_top, self._compiled)(logits, given)
        if "counts" in drawn:
            self._remember(drawn.pop("counts"))
        return Draw(**drawn)

    def _keys(self, positions: Sequence[int]) -> mx.array:
        """(B, 2), made on the host."""
        rows = self._rows * len(positions) if len(self._rows) == 1 else self._rows
        keys = b"".join(row.key(p) for row, p in zip(rows, positions, strict=True))
        return mx.array(np.frombuffer(keys, np.uint32).reshape(-1, 2))

    def _remember(self, counts: mx.array) -> None:
        self._given["counts"] = counts
        for row, count in zip(self._rows, counts, strict=True):
            if row.counts is not None:
                row.counts = count


def _bias(params: SamplingParams, vocab_size: int) -> mx.array:
    ids, values = zip(*params.logit_bias, strict=True)
    if max(ids) >= vocab_size:
        raise UsageError(f"logit_bias: the ids of this model lie in 0..{vocab_size - 1}")
    bias = mx.zeros((vocab_size,))
    bias[mx.array(ids)] = mx.array(values, mx.float32)
    return bias


def _settings(rows: Sequence[Row]) -> _Arrays:
    """What `_draw` needs beside logits, keys and a mask, for the features that any row asks for."""
    params = [row.params for row in rows]
    given: _Arrays = {}
    if any(row.bias is not None for row in rows):
        given["bias"] = _stack([row.bias for row in rows], rows[0].vocab_size, mx.float32)
    if any(row.counts is not None for row in rows):
        given["counts"] = _stack([row.counts for row in rows], rows[0].vocab_size, mx.float32)
        given["in_prompt"] = _stack([row.in_prompt for row in rows], rows[0].vocab_size, mx.bool_)
        given["repetition"] = _column([p.repetition_penalty for p in params])
        given["presence"] = _column([p.presence_penalty for p in params])
        given["frequency"] = _column([p.frequency_penalty for p in params])
    if any(p.temperature >= _COLDEST for p in params):
        given["temperature"] = _column([p.temperature for p in params])
        if any(p.top_k or p.top_p < 1 for p in params):
            sizes = [min(p.top_k, rows[0].vocab_size) or rows[0].vocab_size for p in params]
            given["top_k"] = mx.array(sizes)[:, None]
            given["top_p"] = _column([p.top_p for p in params])
        if any(p.min_p for p in params):
            given["min_p"] = _column([p.min_p for p in params])
    return given


def _column(values: Sequence[float]) -> mx.array:
    return mx.array(list(values), mx.float32)[:, None]  # (B, 1)


def _stack(rows: Sequence[mx.array | None], vocab_size: int, dtype: mx.Dtype) -> mx.array:
    """(B, V); zeros where a row has nothing."""
    nothing = mx.zeros((vocab_size,), dtype)
    return mx.stack([nothing if row is None else row for row in rows])


@functools.cache
def _step(num_top: int | None, compiled: bool) -> Callable[[mx.array, _Arrays], _Arrays]:
    """`_draw`, compiled or as it is; MLX traces it once for each set of given arrays."""
    step = functools.partial(_draw, num_top)
    return cast("Callable[[mx.array, _Arrays], _Arrays]", mx.compile(step)) if compiled else step


def _draw(num_top: int | None, logits: mx.array, given: _Arrays) -> _Arrays:
    """logits (B, V) -> the fields of a `Draw`, and "counts" (B, V) if they were given."""
    raw = logits.astype(mx.float32)
    scores = raw
    if "bias" in given:
        scores = scores + given["bias"]
    if "counts" in given:
        scores = penalize(scores, **{name: given[name] for name in _PENALTY})
    if "mask" in given:
        scores = keep_allowed(scores, given["mask"])
    if "keys" in given:
        scores = _noisy(scores, given)
    ids = mx.argmax(scores, axis=-1)
    drawn = {"ids": ids, "is_number": ~mx.any(mx.isnan(raw), axis=-1)}
    if "counts" in given:
        drawn["counts"] = given["counts"].at[mx.arange(len(ids)), ids].add(1)
    return drawn | (_logprobs(raw, ids, num_top) if num_top is not None else {})


def _noisy(scores: mx.array, given: _Arrays) -> mx.array:
    """Scores (B, V) of which the largest is a draw from their softmax (the Gumbel-max trick)."""
    cold = given["temperature"] < _COLDEST
    scores = scores / mx.where(cold, 1, given["temperature"])
    if "top_k" in given:
        scores = keep_likeliest(scores, given["top_k"], given["top_p"])
    if "min_p" in given:
        scores = keep_min_p(scores, given["min_p"])
    return scores + mx.where(cold, 0, gumbel(given["keys"], scores.shape[-1]))


def penalize(
    scores: mx.array,
    counts: mx.array,
    in_prompt: mx.array,
    repetition: mx.array,
    presence: mx.array,
    frequency: mx.array,
) -> mx.array:
    """Apply the repetition penalty, then the two of OpenAI's API; see `SamplingParams`.

    Args:
        scores: (B, V).
        counts: (B, V) how often each id was drawn.
        in_prompt: (B, V) bool.
        repetition: (B, 1); 1 is off.
        presence: (B, 1); 0 is off.
        frequency: (B, 1); 0 is off.
    """
    drawn = counts > 0
    factor = mx.where(in_prompt | drawn, repetition, 1)
    scores = mx.where(scores > 0, scores / factor, scores * factor)
    return scores - frequency * counts - presence * drawn


def keep_allowed(scores: mx.array, mask: mx.array) -> mx.array:
    """Scores (B, V), -inf where bit j of word i of a mask (B, ceil(V / 32)) says 0 to 32 i + j."""
    bits = mask[:, :, None] & mx.array([1 << j for j in range(32)], mx.uint32)  # (B, W, 32)
    allowed = (bits != 0).reshape(len(mask), -1)[:, : scores.shape[-1]]
    return mx.where(allowed, scores, -mx.inf)


def keep_likeliest(scores: mx.array, top_k: mx.array, top_p: mx.array) -> mx.array:
    """Scores (B, V), -inf for all but the top_k (B, 1), and of those the nucleus of top_p (B, 1).

    The id that crosses top_p stays, so one always does; so do all that tie with the last to stay.
    """
    ascending = mx.sort(scores, axis=-1)
    last = mx.take_along_axis(ascending, scores.shape[-1] - top_k, axis=-1)
    probabilities = mx.softmax(mx.where(ascending >= last, ascending, -mx.inf), axis=-1)
    above = mx.cumsum(probabilities, axis=-1, reverse=True, inclusive=False)
    nucleus = mx.where((above < top_p) | (top_p == 1), ascending, mx.inf)
    threshold = mx.maximum(last, mx.min(nucleus, axis=-1, keepdims=True))
    return mx.where(scores >= threshold, scores, -mx.inf)


def keep_min_p(scores: mx.array, min_p: mx.array) -> mx.array:
    """Scores (B, V), -inf for ids less likely than min_p (B, 1) times the likeliest."""
    threshold = mx.max(scores, axis=-1, keepdims=True) + mx.log(min_p)
    return mx.where(scores >= threshold, scores, -mx.inf)


def gumbel(keys: mx.array, vocab_size: int) -> mx.array:
    """Keys (B, 2) -> finite noise (B, V), each row from its own key.

    Of a uniform u the large noise, which draws rare ids, comes from u near 0, where floats are
    dense: -log(u) in the place of -log(1 - u) would know no odds between 1 in 2^24 and none.
    """

    def uniform(key: mx.array) -> mx.array:
        return mx.random.uniform(shape=(vocab_size,), key=key)

    u = mx.maximum(mx.vmap(uniform)(keys), _SMALLEST_UNIFORM)
    return -mx.log(-mx.log1p(-u))


def _logprobs(raw: mx.array, ids: mx.array, num_top: int) -> _Arrays:
    """Log-softmax of raw (B, V) at the ids drawn, and at the num_top likeliest."""
    total = mx.logsumexp(raw, axis=-1, keepdims=True)
    found = {"logprobs": (mx.take_along_axis(raw, ids[:, None], axis=-1) - total)[:, 0]}
    if num_top:
        likeliest = mx.argpartition(-raw, kth=num_top - 1, axis=-1)[:, :num_top]
        values = mx.take_along_axis(raw, likeliest, axis=-1)
        order = mx.argsort(-values, axis=-1)
        found["top_ids"] = mx.take_along_axis(likeliest, order, axis=-1)
        found["top_logprobs"] = mx.take_along_axis(values, order, axis=-1) - total
    return found
