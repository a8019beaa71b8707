"""Runs the model for some sequences: a chunk of one prompt, or the next token of each.

    begin     what is cached of a prompt is shared, and room made for the rest
    prefill   a chunk of it into the cache; after the last one the first token is drawn
    decode    one token for each sequence, in one pass
    verify    the same for one sequence and a draft: one token, and those of the draft that hold
    jump      the same where a grammar leaves no choice: what must come, and the next token
    end       the sequence's tokens stay in the prefix cache for others

A step is submitted before the previous one's ids are waited for, so the device never waits for
Python; only a constraint, whose mask needs the ids, and a draft come after them. It does not know
queues, limits, stop tokens or threads: tokens go to `emit`, failures of one sequence to `fail`, and
both may end it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from collections.abc import Sequence as Ids
from dataclasses import dataclass, field
from typing import Any, cast

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from gptoss_mlx.cache import MAX_TRIM
from gptoss_mlx.errors import CacheFullError, EngineError
from gptoss_mlx.model import Model
from gptoss_mlx.prefix import Lease, PrefixCache
from gptoss_mlx.sampler import Draw, Row, Sampler
from gptoss_mlx.sequence import Sequence, Token
from gptoss_mlx.speculation import Speculation

__all__ = ["Runner"]

logger = logging.getLogger(__name__)
Emit = Callable[[Sequence, Token], object]
Fail = Callable[[Sequence, Exception], object]

_PLACE_EVERY = 2048  # tokens of a prompt; where it may be gone on from, besides its messages' ends
_MOST_PLACES = 32  # of one prompt
_LONGEST_DRAFT = MAX_TRIM - 1


@dataclass(eq=False)
class _Active:
    """What a sequence has while it runs."""

    sequence: Sequence
    lease: Lease
    row: Row
    places: list[int]
    speculation: Speculation
    drawn: int  # tokens of the completion, that of a step under way included
    # The draw of its last token, and in which row; None: it is known. Not the step, which knows
    # its rows: such a cycle would keep the cache of a sequence that has ended.
    last: mx.array | None = None
    at: int = 0


@dataclass(eq=False)
class _Step:
    """Tokens that were drawn, and are perhaps still being computed."""

    rows: list[_Active]
    draw: Draw
    is_decode: bool
    submitted: float = field(default_factory=time.perf_counter)


class Runner:
    """A model, its prefix cache, and the sequences that run."""

    def __init__(
        self, model: Model, prefix: PrefixCache, chunk: int, emit: Emit, fail: Fail
    ) -> None:
        self.model = model
        self.prefix = prefix
        self.chunk = chunk
        self._emit = emit
        self._fail = fail
        self._active: dict[Sequence, _Active] = {}
        self._pending: list[_Step] = []
        self._sampler: tuple[list[Row], Sampler] | None = None
        self._plain_seconds: float | None = None  # what a step of one sequence lasts

    def begin(self, sequence: Sequence) -> bool:
        """Share what is cached of its tokens; False if there is no room for the rest now.

        If there never will be, the sequence fails.
        """
        tokens, request = sequence.tokens, sequence.request
        if not self.prefix.make_room_for(tokens):
            is_too_long = self.prefix.bytes_for(len(tokens) + 1) > self.prefix.budget
            if is_too_long or not self._active:
                self._fail(sequence, self._full(len(tokens)))
            return False
        drawn = tokens[len(request.prompt) :]
        row = Row(
            request.params, sequence.seed, request.prompt, self.model.config.vocab_size, drawn
        )
        speculation = Speculation(request.speculation, tokens)
        lease = self.prefix.lease(tokens, len(tokens) + 1)  # last: whoever has one must release it
        sequence.computed = lease.reused
        places = _places(tokens, request.boundaries, lease.reused)
        self._active[sequence] = _Active(sequence, lease, row, places, speculation, len(drawn))
        return True

    def has_begun(self, sequence: Sequence) -> bool:
        """Whether it has a cache."""
        return sequence in self._active

    def prefill(self, sequence: Sequence) -> bool:
        """Put the next chunk of its tokens into the cache; True if it was the last.

        Raises:
            CacheFullError: there is no room for the chunk.
        """
        active = self._active[sequence]
        cache, tokens = active.lease.cache, sequence.tokens
        start, end = cache.offset, min(cache.offset + self.chunk, len(tokens))
        room = active.lease.growth(end - start)  # some, if others have begun to share its segment
        if room and not self.prefix.make_room(room):
            raise self._full(len(tokens))
        hidden = self.model.hidden_states(mx.array(tokens[start:end])[None], cache)
        mx.eval(cache.arrays)
        active.lease.commit(tokens, [p for p in active.places if start < p <= end])
        sequence.computed = end
        if end < len(tokens):
            return False
        mx.clear_cache()  # buffers of a chunk's size are of no use to decoding
        self._draw([active], self.model.logits(hidden[:, -1]))
        return True

    def decode(self, sequences: Ids[Sequence]) -> None:
        """Compute the next token of each; emits what the step before drew.

        Raises:
            CacheFullError: there is no room for another token of each.
        """
        rows = [self._active[s] for s in sequences]
        room = sum(row.lease.growth(1) for row in rows)  # mostly none
        if room and not self.prefix.make_room(room):
            raise self._full(max(len(s.tokens) for s in sequences))
        ids, caches = self._last_ids(rows), [row.lease.cache for row in rows]
        logits = self.model.logits(self.model.hidden_states(ids[:, None], *caches)[:, -1])
        if any(s.request.constraint for s in sequences):
            mx.async_eval(logits)
            self.flush()  # masks need the ids
        before = len(self._pending)
        self._draw(rows, logits)
        self._collect(before)

    def verify(self, sequence: Sequence, limit: int) -> bool:
        """Decode one sequence with a draft of at most `limit` tokens; False if there is none.

        What is emitted is what single steps would draw: a drafted token holds if it is that.
        """
        active = self._active[sequence]
        if not active.speculation.may_draft or not active.row.is_memoryless:
            return False
        if sequence.request.constraint:  # whose mask for a draft would need to go ahead and back
            return False
        self.flush()
        draft = active.speculation.draft(min(limit, _LONGEST_DRAFT))
        room = active.lease.growth(len(draft) + 1)
        if not draft or not self._is_active(active) or not self.prefix.make_room(room):
            return False
        started, cache = time.perf_counter(), active.lease.cache
        fed = mx.array([[sequence.tokens[-1], *draft]])
        logits = self.model.logits(self.model.hidden_states(fed, cache)[0])
        draw = Sampler([active.row])(logits, range(active.drawn, active.drawn + len(draft) + 1))
        tokens = _tokens(draw, [active.row] * (len(draft) + 1))
        ids = [None if token is None else token.id for token in tokens]
        held = next((n for n, i in enumerate(draft) if ids[n] != i), len(draft))
        cache.trim(len(draft) - held)
        active.drawn, active.last = active.drawn + held + 1, None
        self._account(active, len(draft), held, time.perf_counter() - started)
        for token in tokens[: held + 1]:
            self._hand_on(active, token)
        return True

    def jump(self, sequence: Sequence, limit: int) -> bool:
        """Emit what the constraint of one sequence forces, at most `limit` tokens, and go on.

        False if nothing is forced; then the next token is to be drawn as ever.
        """
        active, constraint = self._active[sequence], sequence.request.constraint
        wants_logprobs = active.row.params.logprobs is not None  # which nobody computes then
        if constraint is None or wants_logprobs or not active.row.is_memoryless:
            return False
        self.flush()
        if not self._is_active(active):
            return False
        forced = constraint.forced()[: min(limit, self.chunk)]
        if not forced:
            return False
        if min(forced) < 0 or max(forced) >= self.model.config.vocab_size:
            self._fail(sequence, EngineError("the constraint forces ids that there are not"))
            return True
        if not self.prefix.make_room(active.lease.growth(len(forced) + 1)):
            raise self._full(len(sequence.tokens))
        for token in forced:
            self._hand_on(active, Token(token))
        if self._is_active(active):
            active.drawn, active.last = active.drawn + len(forced), None
            ids = mx.array([sequence.tokens[-1 - len(forced) :]])
            hidden = self.model.hidden_states(ids, active.lease.cache)
            self._draw([active], self.model.logits(hidden[:, -1]))
        return True

    def flush(self) -> None:
        """Wait for what is being computed, and emit it."""
        before = list(self._pending)
        self._collect(len(before))
        if len(before) == 1 and len(before[0].rows) == 1 and before[0].is_decode:
            self._plain_seconds = time.perf_counter() - before[0].submitted

    def end(self, sequence: Sequence, *, is_sound: bool = True) -> None:
        """Let go of it; its tokens stay cached, unless a step with it has failed."""
        active = self._active.pop(sequence, None)
        if active is None:
            return
        if not is_sound:
            active.lease.discard()
            return
        known = sequence.tokens[:-1] if active.drawn else None  # the last may not have been fed
        try:
            active.lease.release(known)
        except Exception as error:  # there was no memory for the windows, say
            logger.warning("tokens of an ended sequence could not be kept: %s", repr(error))
            active.lease.discard()

    def forget_steps(self) -> list[Sequence]:
        """A step has failed: drop all that is being computed; whose it was."""
        steps, self._pending = self._pending, []
        return [row.sequence for step in steps for row in step.rows if self._is_active(row)]

    def _full(self, tokens: int) -> CacheFullError:
        return CacheFullError(
            f"the cache of {self.prefix.budget / 2**30:.2f} GiB has no room for a sequence of "
            f"{tokens:,} tokens: shorten it, or give the cache more memory"
        )

    def _draw(self, rows: list[_Active], logits: mx.array) -> None:
        """Submit the draw of each row's next token."""
        sampler = self._sampler_for([row.row for row in rows])
        is_decode = rows[0].last is not None
        mask = self._mask(rows)
        draw = sampler(logits, [row.drawn for row in rows], mask)
        step = _Step(rows, draw, is_decode)
        mx.async_eval(draw.arrays)
        self._pending.append(step)
        for at, row in enumerate(rows):
            row.last, row.at, row.drawn = draw.ids, at, row.drawn + 1

    def _sampler_for(self, rows: list[Row]) -> Sampler:
        """The one of the step before, if it was for the same rows."""
        if self._sampler is None or self._sampler[0] != rows:
            self._sampler = rows, Sampler(rows)
        return self._sampler[1]

    def _mask(self, rows: list[_Active]) -> mx.array | None:
        """(B, V / 32) bits, all ones in the rows that have no constraint."""
        masks: dict[int, NDArray[np.uint32]] = {}
        for at, row in enumerate(rows):
            constraint = row.sequence.request.constraint
            found = constraint.mask() if constraint and self._is_active(row) else None
            if found is not None:
                masks[at] = found
        if not masks:
            return None
        words = -(-self.model.config.vocab_size // 32)
        mask = np.full((len(rows), words), 0xFFFFFFFF, np.uint32)
        for at, found in masks.items():
            mask[at] = found
        return mx.array(mask)

    def _last_ids(self, rows: list[_Active]) -> mx.array:
        """The last token of each row (B,), perhaps not computed yet."""
        last = rows[0].last
        is_same = all(row.last is last and row.at == at for at, row in enumerate(rows))
        if last is not None and is_same and len(last) == len(rows):
            return last
        ids = [
            mx.array([row.sequence.tokens[-1]])
            if row.last is None
            else row.last[row.at : row.at + 1]
            for row in rows
        ]
        return mx.concatenate(ids)

    def _collect(self, n: int) -> None:
        """Wait for the first n steps, in order, and emit their tokens.

        A step that fails stays, for `forget_steps`.
        """
        for _ in range(n):
            step = self._pending[0]
            tokens = _tokens(step.draw, [row.row for row in step.rows])
            for row, token in zip(step.rows, tokens, strict=True):
                self._hand_on(row, token)
            del self._pending[0]

    def _hand_on(self, row: _Active, token: Token | None) -> None:
        if not self._is_active(row):
            return  # it has ended meanwhile
        if token is None:
            row.lease.forget()
            broken = (
                "the model's logits are not numbers: `gptoss-mlx doctor --deep` checks its files"
            )
            self._fail(row.sequence, EngineError(broken))
            return
        constraint = row.sequence.request.constraint
        try:
            if constraint is not None:
                constraint.advance(token.id)
        except Exception as error:  # whatever a grammar does, it is this request's matter alone
            self._fail(row.sequence, error)
            return
        row.speculation.push(token.id)
        self._emit(row.sequence, token)

    def _is_active(self, row: _Active) -> bool:
        return self._active.get(row.sequence) is row

    def _account(self, active: _Active, drafted: int, held: int, seconds: float) -> None:
        if self._plain_seconds is not None:
            active.speculation.record(drafted, held, seconds, self._plain_seconds)
        active.sequence.stats.drafted_tokens += drafted
        active.sequence.stats.accepted_tokens += held


def _places(tokens: Ids[int], boundaries: frozenset[int], start: int) -> list[int]:
    """Positions after `start` that prompts to come may go on from.

    Where messages begin, the last and the first of them if there are many; before the end of the
    last one, to which something may be added; now and then within a long one; and before the last
    token, for the same prompt once more.
    """
    begins = [i for i in range(start + 1, len(tokens)) if tokens[i] in boundaries]
    if len(begins) > _MOST_PLACES:
        begins = begins[:2] + begins[2 - _MOST_PLACES :]
    within = range(start - start % _PLACE_EVERY + _PLACE_EVERY, len(tokens), _PLACE_EVERY)
    ends = [begins[-1] - 1] if begins and begins[-1] - 1 > start else []
    return sorted({*begins, *ends, *within, len(tokens) - 1})


def _tokens(draw: Draw, rows: Ids[Row]) -> list[Token | None]:
    """Wait for a draw: the token of each row, None where the logits were not numbers."""
    ids = cast("list[int]", draw.ids.tolist())
    are_numbers = cast("list[bool]", draw.is_number.tolist())
    logprobs, top_ids, top_logprobs = (
        [None] * len(ids) if a is None else cast("list[Any]", a.tolist())
        for a in (draw.logprobs, draw.top_ids, draw.top_logprobs)
    )
    found: list[Token | None] = []
    for at, row in enumerate(rows):
        wanted = row.params.logprobs
        if not are_numbers[at]:
            found.append(None)
        elif wanted is None:
            found.append(Token(ids[at]))
        else:
            top = zip(top_ids[at] or (), top_logprobs[at] or (), strict=True)
            found.append(Token(ids[at], logprobs[at], tuple(top)[:wanted]))
    return found
