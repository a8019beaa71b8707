"""The engine without its thread: sequences in, events out, a step at a time.

Each step decodes a token of every running sequence together. Then, if decoding has had its third of
the time, it prefills a chunk of one prompt: a long prompt does not hold up answers under way. What
goes wrong in a step is the matter of its sequences: one that was alone fails, several are computed
again, each alone, to find the one.

    step   end what was cancelled -> decode -> prefill
    fail   in a step of one: it ends in the error; of several: all become suspects and wait again
    full   the youngest gives its memory to the others, and waits again

It does not know threads, nor who reads the events.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable

import mlx.core as mx

from gptoss_mlx.errors import CacheFullError, DeadlineError, EngineError, GptOssError
from gptoss_mlx.model import Model
from gptoss_mlx.prefix import PrefixCache
from gptoss_mlx.runner import Runner
from gptoss_mlx.scheduler import Scheduler
from gptoss_mlx.sequence import FinishReason, Sequence, Token

__all__ = ["EngineCore"]

logger = logging.getLogger(__name__)

_DECODING = 0.5  # seconds that decoding gets for each second of a prefill


class EngineCore:
    """Scheduler and runner, and what to do when something fails. One thread only.

    Args:
        model: what runs.
        prefix: its keys and values.
        chunk: tokens of a prompt that are computed at once.
        max_running: sequences computed together.
    """

    def __init__(self, model: Model, prefix: PrefixCache, chunk: int, max_running: int) -> None:
        self.prefix = prefix
        self.scheduler = Scheduler(max_running)
        self.runner = Runner(model, prefix, chunk, self._emit, self._on_failure)
        self._chunk = chunk
        self._owed = 0.0  # seconds that decoding gets before the next chunk

    def end_all(self, error: Exception) -> None:
        """All sequences fail with this."""
        for sequence in self.scheduler.all:
            self._fail(sequence, error)
        self.runner.forget_steps()

    def abandon(self, error: Exception) -> None:
        """The same without the runner, which may be what is broken."""
        for sequence in self.scheduler.all:
            sequence.end("error", error)

    def step(self) -> None:
        """Decode a token of each running sequence; prefill a chunk of one prompt, if it is time."""
        self._end_cancelled()
        self.scheduler.admit()
        self._owed -= self._timed(self._decode_all)
        if self._owed <= 0 or not self.scheduler.running:
            self._owed = _DECODING * self._timed(self._prefill_next)
        if not self.scheduler.running:  # what the last ones drew beyond their end
            self._guard([], self._flush)

    def _timed(self, action: Callable[[], None]) -> float:
        """Seconds that it took."""
        start = time.perf_counter()
        action()
        return time.perf_counter() - start

    def _decode_all(self) -> None:
        for batch in self._batches():
            if batch[0].is_suspect:  # the others' step may fail, too
                self._guard([], self._flush)
            if present := [s for s in batch if s in self.scheduler.running]:
                self._guard(present, self._decode)

    def _prefill_next(self) -> None:
        sequence = self.scheduler.next_prefill(self._reusable, self._chunk)
        if sequence is not None:
            self._guard([sequence], self._prefill)

    def _end_cancelled(self) -> None:
        now = time.perf_counter()
        for sequence in self.scheduler.all:
            if sequence.is_cancelled:
                self._finish(sequence, "cancelled")
            elif now > sequence.deadline:
                seconds = sequence.request.timeout
                self._fail(sequence, DeadlineError(f"not done within {seconds:g} s"))

    def _batches(self) -> list[list[Sequence]]:
        """Those that decode together: suspects alone, all others."""
        together = [s for s in self.scheduler.running if not s.is_suspect]
        alone = [[s] for s in self.scheduler.running if s.is_suspect]
        return [*([together] if together else []), *alone]

    def _decode(self, batch: list[Sequence]) -> None:
        if not (len(batch) == 1 and self._decode_several(batch[0])):
            batch = [s for s in batch if not s.has_ended]  # verify waits for the step before
            if batch:
                self.runner.decode(batch)
        if any(s.is_suspect for s in batch):
            self.runner.flush()
            batch[0].is_suspect = False

    def _decode_several(self, sequence: Sequence) -> bool:
        """Tokens that a grammar forces, or a draft, in one step; False if there are none."""
        room = self._room(sequence)
        if self.runner.jump(sequence, room) or sequence.has_ended:  # it waits for the step before
            return True
        return self.runner.verify(sequence, room)

    def _flush(self, _: list[Sequence]) -> None:
        self.runner.flush()

    def _room(self, sequence: Sequence) -> int:
        """Tokens that may still be drawn after the next."""
        return sequence.max_tokens - sequence.num_drawn - 1

    def _prefill(self, batch: list[Sequence]) -> None:
        [sequence] = batch
        if not self.runner.has_begun(sequence):
            if not self.runner.begin(sequence):
                return
            self._begun(sequence)
        is_done = self.runner.prefill(sequence)
        self._report(sequence)
        if is_done:
            self.scheduler.start(sequence)

    def _begun(self, sequence: Sequence) -> None:
        if sequence.started is None:
            sequence.started = time.perf_counter()
            sequence.stats.queue_seconds = sequence.started - sequence.submitted
            sequence.stats.cached_tokens = sequence.computed
        self._report(sequence)

    def _report(self, sequence: Sequence) -> None:
        if not sequence.num_drawn:  # else it was seen to begin before
            sequence.events.put((sequence.computed, len(sequence.tokens)))

    def _reusable(self, sequence: Sequence) -> int:
        return self.prefix.reusable(sequence.tokens)

    def _emit(self, sequence: Sequence, token: Token) -> None:
        """The runner has drawn a token."""
        now, stats = time.perf_counter(), sequence.stats
        if sequence.answered is None:
            sequence.answered = now
            stats.prefill_seconds = now - (sequence.started or now)
        stats.decode_seconds = now - sequence.answered
        sequence.tokens.append(token.id)
        stats.completion_tokens = sequence.num_drawn
        sequence.events.put(token)
        if token.id in sequence.request.stop:
            self._finish(sequence, "stop")
        elif sequence.num_drawn >= sequence.max_tokens:
            self._finish(sequence, "length")

    def _finish(
        self, sequence: Sequence, reason: FinishReason, error: Exception | None = None
    ) -> None:
        """It ends, once and for all."""
        if sequence.has_ended:
            return
        try:
            self.scheduler.end(sequence)
            self.runner.end(sequence)
        finally:
            sequence.end(reason, error)

    def _fail(self, sequence: Sequence, error: Exception) -> None:
        if not isinstance(error, GptOssError):
            cause, error = error, EngineError(f"the request failed: {error}")
            error.__cause__ = cause
        self._finish(sequence, "error", error)

    def _on_failure(self, sequence: Sequence, error: Exception) -> None:
        """The runner cannot go on with this one."""
        self.runner.end(sequence, is_sound=False)
        self._fail(sequence, error)

    def _guard(self, batch: list[Sequence], action: Callable[[list[Sequence]], None]) -> None:
        """Whatever goes wrong in the step is the matter of these sequences only."""
        try:
            action(batch)
        except CacheFullError as error:
            self._preempt(error)
        except Exception as error:
            # not the error itself: a log may keep it, and it its frames, and they caches
            logger.warning("a step with %d sequences failed: %s", len(batch), repr(error))
            logger.debug("where it failed", exc_info=error)
            error.__traceback__ = None
            self._recover(batch, error)

    def _preempt(self, error: CacheFullError) -> None:
        """Of the sequences that have a cache the youngest waits again; the only one fails."""
        holders = [s for s in self.scheduler.all if self.runner.has_begun(s)]
        if len(holders) > 1:
            youngest = max(holders, key=lambda s: s.submitted)
            self.runner.end(youngest)
            self.scheduler.requeue([youngest])
        else:
            for sequence in holders:
                self._fail(sequence, error)

    def _recover(self, batch: list[Sequence], error: Exception) -> None:
        """A step failed: whoever was alone in it fails, others have to show themselves alone."""
        batch = [s for s in batch if not s.has_ended]
        if not any(s in self.scheduler.prefilling for s in batch):
            batch = list(dict.fromkeys([*batch, *self.runner.forget_steps()]))
        for sequence in batch:
            self.runner.end(sequence, is_sound=False)
            sequence.is_suspect = True
        if _is_out_of_memory(error):
            self.prefix.clear()
            self._run_fewer(len(batch))
        mx.clear_cache()
        if len(batch) == 1:
            self._fail(batch[0], error)
        else:
            self.scheduler.requeue(batch)

    def _run_fewer(self, together: int) -> None:
        """So many sequences were too many for the memory there is."""
        if together > 1:
            self.scheduler.max_running = together - 1
            logger.warning("from now on at most %d requests run together", together - 1)


def _is_out_of_memory(error: Exception) -> bool:
    """Python's, or one of MLX's: "Unable to allocate", "Insufficient Memory", "OutOfMemory"."""
    signs = r"unable to allocate|attempting to allocate|insufficient memory|out ?of ?memory"
    return isinstance(error, MemoryError) or bool(re.search(signs, str(error), re.IGNORECASE))
