"""Ids in, ids out, for several requests at once; one thread of its own runs the model.

It knows nothing of text, harmony or tools: which ids stop a completion is its caller's choice, and
the stop id is the last one it gives. What happens in a step is in core.py.

    submit   any thread: a request into the inbox; what comes of it is read from its Generation
    run      the engine's own thread: inbox -> core -> events of each sequence
"""

from __future__ import annotations

import atexit
import gc
import logging
import math
import operator
import secrets
import threading
import traceback
import weakref
from collections.abc import Callable, Container
from collections.abc import Sequence as Ids
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from gptoss_mlx.cache import window_bytes
from gptoss_mlx.config import SamplingParams
from gptoss_mlx.core import EngineCore
from gptoss_mlx.errors import BusyError, ContextLengthError, EngineError, UsageError
from gptoss_mlx.generation import Generation, OnPrefill
from gptoss_mlx.memory import Plan, Use
from gptoss_mlx.model import Model
from gptoss_mlx.models import load, plan_for
from gptoss_mlx.persistence import restore, save
from gptoss_mlx.prefix import PrefixCache
from gptoss_mlx.segment import KVBits
from gptoss_mlx.sequence import GenerationStats, Request, Sequence

__all__ = ["Engine", "Health"]

logger = logging.getLogger(__name__)
# Tokens of a prompt that go through the layers together: enough that each expert sees many, few
# enough that what several layers hold at once is small beside the weights.
_PREFILL_CHUNK = 512
_CACHE_BYTES = 2 << 30
_MOST_CACHE_BYTES = 16 << 30  # where there is room for more, nobody would miss it
_MAX_RUNNING = 8
_MOST_DEATHS = 3  # of the thread, without a step that succeeds in between
_engines: weakref.WeakSet[Engine] = weakref.WeakSet()


@dataclass(frozen=True)
class Health:
    """How an engine does: red after its thread died, until a step succeeds again."""

    is_green: bool
    problem: str | None
    running: int
    waiting: int


class Engine:
    """A model that answers requests, several at a time. Close it, or use it in a `with`.

    Args:
        model: its parameters are evaluated already, as `load` leaves them.
        prefill_chunk: tokens of a prompt that are computed at once.
        max_running: sequences computed together.
        max_waiting: further requests that may wait; then `submit` raises BusyError.
        cache_bytes: for keys and values, of running sequences and of prompts to be reused.
        kv_bits: 8: keys and values of the full layers take 8 bits and their scales, so that a
            little more than half the memory of bfloat16 is enough. Not the default, as logits
            change. Accepted while, against kv_bits=16, the mean KL divergence is at most 0.001
            nats and the likeliest token is the same at 99% of the positions: a test holds it to
            that at a few hundred tokens, benchmarks/kv_quality.py measures it at 8k.
        context: tokens that prompt and answer may have together; by default what the model knows.
        prompt_cache: a folder in which prompts stay warm from one run to the next; written when the
            engine is closed.

    `plan` is what memory was planned for, of an engine that was loaded. `on_end`, if it is set, is
    told of each sequence that ends; it must not raise.

    Raises:
        UsageError: the model's heads cannot be kept in 8 bits, or it does not know such a context.
        DiskError: the folder cannot be written.
    """

    def __init__(
        self,
        model: Model,
        *,
        prefill_chunk: int = _PREFILL_CHUNK,
        max_running: int = _MAX_RUNNING,
        max_waiting: int = 64,
        cache_bytes: int = _CACHE_BYTES,
        kv_bits: KVBits = 16,
        context: int | None = None,
        prompt_cache: Path | None = None,
    ) -> None:
        if min(prefill_chunk, max_running, cache_bytes) < 1 or max_waiting < 0:
            raise UsageError("an engine needs a chunk, a sequence and a cache of at least one")
        self.model = model
        self.prefill_chunk = prefill_chunk
        self._max_running, self._max_waiting = max_running, max_waiting
        self._cache_bytes = cache_bytes
        self._kv_bits: KVBits = kv_bits
        self.context = model.config.max_context_length if context is None else context
        if not 0 < self.context <= model.config.max_context_length:
            raise UsageError(f"the context must lie in 1..{model.config.max_context_length:,}")
        self.plan: Plan | None = None
        self.on_end: Callable[[Sequence], object] | None = None
        self._prompt_cache = prompt_cache
        self._wake = threading.Condition()
        self._inbox: list[Sequence] = []
        self._thread: threading.Thread | None = None
        self._is_closed = False
        self._is_hurried = False
        self._problem: str | None = None  # of the thread's last death
        self._deaths = 0  # since a step succeeded
        self._set_up()
        if prompt_cache is not None:
            restore(self.prefix, prompt_cache, self._fingerprint)
        _engines.add(self)

    @classmethod
    def load(
        cls,
        name: str | Path,
        use: Use | None = None,
        *,
        max_waiting: int = 64,
        prompt_cache: Path | None = None,
    ) -> Self:
        """Load a model, as far as it fits, and an engine with the memory that the plan leaves it.

        Args:
            name: as `models.load` takes it.
            use: what memory is planned for; its `parallel` sequences run at the same time.
            max_waiting: as above.
            prompt_cache: as above.

        Raises:
            CheckpointError, MemoryPlanError, UsageError: as `models.load`.
        """
        use = use or Use()
        plan = plan_for(name, use=use)
        model = load(name, use=use)
        windows = _MAX_RUNNING * window_bytes(model.config, model.dtype)
        is_roomy = windows < plan.kv_budget // 4  # else no more than was planned for run together
        engine = cls(
            model,
            prefill_chunk=use.prefill_chunk,
            max_running=max(use.parallel, _MAX_RUNNING if is_roomy else 1),
            max_waiting=max_waiting,
            cache_bytes=min(plan.kv_budget - windows * is_roomy, _MOST_CACHE_BYTES),
            kv_bits=use.kv_bits,
            context=plan.context,
            prompt_cache=prompt_cache,
        )
        engine.plan = plan
        return engine

    def generate(
        self,
        prompt: Ids[int],
        params: SamplingParams | None = None,
        stop: Container[int] = (),
        on_prefill: OnPrefill | None = None,
    ) -> Generation:
        """`submit` with the usual arguments; see `Request`."""
        request = Request(tuple(prompt), params or SamplingParams(), stop)
        return self.submit(request, on_prefill)

    def submit(self, request: Request, on_prefill: OnPrefill | None = None) -> Generation:
        """Start a completion, now or as soon as others are done. From any thread.

        Args:
            request: what is asked.
            on_prefill: called by whoever reads the generation with (prompt tokens done, prompt
                tokens in all), first with those that were cached and then after each chunk.

        Raises:
            ContextLengthError: the prompt leaves no room for an answer.
            UsageError: the prompt is empty, or holds an id outside the vocabulary.
            BusyError: too many requests wait.
            EngineError: the engine is closed, or its thread died and cannot be restarted.
        """
        sequence = self._sequence(request)
        if sequence.max_tokens == 0:
            sequence.end("length")
            return Generation(sequence)
        with self._wake:
            self.check_capacity()
            self._inbox.append(sequence)
            if self._thread is None:
                self._start_thread()
            self._wake.notify()
        return Generation(sequence, on_prefill)

    @property
    def health(self) -> Health:
        """How it does now."""
        running = len(self._core.scheduler.running) + len(self._core.scheduler.prefilling)
        waiting = len(self._core.scheduler.waiting) + len(self._inbox)
        return Health(self._problem is None, self._problem, running, waiting)

    def close(self) -> None:
        """End all requests, and the thread; what waits for tokens gets an EngineError."""
        with self._wake:
            self._is_closed = True
            self._wake.notify()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            try:
                thread.join()
            except KeyboardInterrupt:
                self._is_hurried = True  # no more prompts are kept
                thread.join()
                raise

    def __enter__(self) -> Self:
        """For `with`."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close it."""
        self.close()

    @property
    def _fingerprint(self) -> str:
        """Of all that decides what keys and values are."""
        return f"{self.model.fingerprint} {self._kv_bits}"

    def _set_up(self) -> None:
        self.prefix = PrefixCache(
            self.model.config, self._cache_bytes, self.model.dtype, self._kv_bits
        )
        self._core = EngineCore(self.model, self.prefix, self.prefill_chunk, self._max_running)

    def _sequence(self, request: Request) -> Sequence:
        config, params = self.model.config, request.params
        prompt = _checked_ids(request.prompt, config.vocab_size)
        if request.timeout is not None and not _is_time(request.timeout):
            raise UsageError("a timeout is a number of seconds above 0, or None")
        room = self.context - len(prompt)
        if room <= 0:
            raise ContextLengthError(
                f"the prompt has {len(prompt):,} tokens, "
                f"and the context holds {self.context:,}: shorten it"
            )
        if any(i >= config.vocab_size for i, _ in params.logit_bias):
            raise UsageError(f"logit_bias: the ids of this model lie in 0..{config.vocab_size - 1}")
        return Sequence(
            request,
            seed=secrets.randbits(64) if params.seed is None else params.seed,
            max_tokens=room if params.max_tokens is None else min(room, params.max_tokens),
            tokens=prompt,
            stats=GenerationStats(len(prompt)),
            on_end=self.on_end,
        )

    def check_capacity(self) -> None:
        """Whether a request could be submitted now, before anything is done for it.

        Raises:
            BusyError, EngineError: as `submit`.
        """
        if self._is_closed:
            raise EngineError("the engine is closed")
        if self._deaths >= _MOST_DEATHS:
            raise EngineError(f"the generation thread dies again and again: {self._problem}")
        present = len(self._core.scheduler.all) + len(self._inbox)
        if present >= self._max_running + self._max_waiting:
            raise BusyError(f"{present} requests run or wait already: try again later")

    def _start_thread(self) -> None:
        self._thread = threading.Thread(target=self._run, name="gptoss-mlx engine", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            while self._wait_for_work():
                self._core.step()
                self._problem, self._deaths = None, 0
        except BaseException as error:
            # as text: a log may keep the traceback, and its frames hold caches
            logger.error("the generation thread died\n%s", traceback.format_exc())
            self._bury(error)
        else:
            self._shut_down()

    def _bury(self, error: BaseException) -> None:
        """The thread dies of this: what it had ends, and another one starts, but not for ever."""
        failure = EngineError(f"the generation thread died: {error!r}")
        self._core.abandon(failure)
        self._set_up()
        error.__traceback__ = None  # its frames hold caches
        gc.collect()  # so do the tree's branches, which know their leases, and they the tree
        with self._wake:
            self._problem, self._deaths = repr(error), self._deaths + 1
            self._thread = None
            if self._deaths < _MOST_DEATHS and not self._is_closed:
                self._start_thread()
                return
            inbox, self._inbox = self._inbox, []
        for sequence in inbox:
            sequence.end("error", failure)

    def _wait_for_work(self) -> bool:
        """Whether there is some; False when the engine is closed."""
        with self._wake:
            while not (self._inbox or self._core.scheduler.all or self._is_closed):
                self._wake.wait()
            self._take_inbox()
            return not self._is_closed

    def _take_inbox(self) -> None:
        inbox, self._inbox = self._inbox, []
        for sequence in inbox:
            self._core.scheduler.add(sequence)

    def _shut_down(self) -> None:
        with self._wake:
            self._take_inbox()
        self._core.end_all(EngineError("the engine is closed"))
        if self._prompt_cache is not None:
            folder, limit = self._prompt_cache, self._cache_bytes
            try:
                save(self.prefix, folder, self._fingerprint, limit, lambda: self._is_hurried)
            except Exception as error:  # it is only a cache
                logger.warning("prompts could not be kept: %s", error)
        self.prefix.clear()


def _checked_ids(prompt: Ids[int], vocab_size: int) -> list[int]:
    try:
        ids = [operator.index(i) for i in prompt]
    except TypeError:
        ids = []
    if not ids or min(ids) < 0 or max(ids) >= vocab_size:
        raise UsageError(f"a prompt needs ids, all in 0..{vocab_size - 1}")
    return ids


def _is_time(seconds: object) -> bool:
    return isinstance(seconds, (int, float)) and 0 < seconds < math.inf


@atexit.register
def _close_all() -> None:
    """A thread within MLX must not outlive the interpreter."""
    for engine in list(_engines):
        with suppress(KeyboardInterrupt):
            engine.close()
