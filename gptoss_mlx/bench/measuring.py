"""One side, from loading to the last reading: what happens in a child process.

Before anything is measured, each kind of work is done once: operations are compiled, buffers are
allocated. It does not know the other side, nor how often this is repeated.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import mlx.core as mx

from gptoss_mlx.bench.events import Doing, Event, Loaded, Reading
from gptoss_mlx.bench.sides import Side, SideName, rate_together
from gptoss_mlx.bench.workload import TURN, Workload

__all__ = ["measure", "side_type"]

_WARM_UP = 2100  # tokens: more than either side takes at once, so that chunks follow one another
_FEW = 4


def side_type(name: SideName) -> Callable[[Workload], Side]:
    """What loads the model of a workload; only this side's libraries are imported."""
    if name == "gptoss-mlx":
        from gptoss_mlx.bench.ours import Ours

        return Ours
    from gptoss_mlx.bench.theirs import Theirs

    return Theirs


def measure(name: SideName, workload: Workload) -> Iterator[Event]:
    """Load a side, warm it up, and measure every context and every batch once.

    Raises:
        GptOssError: as `models.load`, and as the engine; mlx-lm has errors of its own.
    """
    yield Doing("loading")
    load = side_type(name)
    started = time.perf_counter()
    side = load(workload)
    seconds = time.perf_counter() - started
    yield Loaded(side.dtype, side.kernels, seconds, mx.get_active_memory())
    yield Doing("warming up")
    _warm_up(side, workload)
    for context in workload.contexts:
        yield Doing(f"context {context:,}")
        yield _conversation(side, workload, context)
    for batch in workload.batches:
        yield Doing(f"batch {batch:,}")
        yield _batch(side, workload, batch)


def _peak_rss() -> int:
    """The most bytes of this process that were in memory at once.

    Linux's ru_maxrss counts what the process that started this one had, so it is read elsewhere.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) << 10
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak << 10


def _warm_up(side: Side, workload: Workload) -> None:
    length, tokens = min(_WARM_UP, workload.contexts[-1]), min(_FEW, workload.tokens)
    side.converse(workload.ids(length, "warm"), tokens, workload.ids(TURN, "warm turn"))
    for batch in workload.batches:
        prompts = [workload.ids(min(_FEW, workload.contexts[0]), "warm", n) for n in range(batch)]
        side.batch(prompts, tokens)


def _conversation(side: Side, workload: Workload, context: int) -> Reading:
    prompt, turn = workload.ids(context, "prompt"), workload.ids(TURN, "turn")
    mx.reset_peak_memory()
    cold, warm = side.converse(prompt, workload.tokens, turn)
    return Reading(
        "context",
        context,
        cold.rate,
        mx.get_peak_memory(),
        _peak_rss(),
        cold.first,
        warm.first,
        warm.cached,
        (*cold.ids, *warm.ids),
    )


def _batch(side: Side, workload: Workload, batch: int) -> Reading:
    mx.reset_peak_memory()
    # one more: of the step with which the last sequence begins, other ids may be there already
    completions = side.batch(workload.prompts(batch), workload.tokens + 1)
    rate = rate_together(completions)
    ids = tuple(i for completion in completions for i in completion.ids[: workload.tokens])
    return Reading("batch", batch, rate, mx.get_peak_memory(), _peak_rss(), ids=ids)
