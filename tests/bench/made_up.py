"""Results that nobody measured; and the processes of those that are."""

from __future__ import annotations

from dataclasses import replace

import psutil

from gptoss_mlx.bench.events import Event, Loaded, Reading
from gptoss_mlx.bench.machine import System
from gptoss_mlx.bench.planning import ModelFacts, Planned
from gptoss_mlx.bench.results import Results
from gptoss_mlx.bench.roofline import Bandwidth
from gptoss_mlx.bench.sides import SIDES, SideName
from gptoss_mlx.bench.turns import Turn
from gptoss_mlx.bench.workload import Workload

__all__ = [
    "SYSTEM",
    "TOLD",
    "WORKLOAD",
    "processes",
    "results",
    "turns",
    "without_batch_rates",
]

GIB = 1 << 30
SYSTEM = System(
    "Apple M4 Pro",
    on_gpu=True,
    cores=14,
    memory=48 * GIB,
    system="macOS 26.1",
    python="3.12.1",
    versions={"gptoss-mlx": "0.1.0", "mlx": "0.32.4", "mlx-lm": "0.32.2"},
)
WORKLOAD = Workload("/models/20b", 199_998, (512, 4096), (1, 8), 64, "memory")
READ = {512: 2_500_000_000, 4096: 2_600_000_000}


def turns(side: SideName, speed: float, rounds: int = 3) -> list[Turn]:
    """What a side tells whose rounds decode with `speed`, 10% less and 20% more of it."""
    found: list[Turn] = []
    kernels = "11 of 12 kernels on" if side == "gptoss-mlx" else ""
    for n, factor in enumerate((1.0, 0.9, 1.2)[:rounds]):
        rate = speed * factor
        ids = tuple(range(65)) if side == "gptoss-mlx" else (*range(40), *range(100, 125))
        events: list[Event] = [
            Loaded("bfloat16", kernels, 2.0 * factor, 11 * GIB),
            Reading("context", 512, rate, 12 * GIB, 12 * GIB, 5.12 / rate, 5 / rate, 576, ids),
            Reading(
                "context", 4096, rate / 2, 13 * GIB, 14 * GIB, 409.6 / rate, 9 / rate, 4160, ids
            ),
            Reading("batch", 1, rate, 12 * GIB, 14 * GIB, ids=ids),
            Reading("batch", 8, rate * 4, 15 * GIB, 15 * GIB, ids=ids),
        ]
        found += [Turn(n, side, event) for event in events]
    return found


TOLD = [*turns("gptoss-mlx", 100), *turns("mlx-lm", 80)]


def without_batch_rates(told: list[Turn]) -> list[Turn]:
    """The same, but our sequences never decoded together."""
    return [
        replace(turn, event=replace(turn.event, decode=None))
        if isinstance(turn.event, Reading)
        and turn.event.kind == "batch"
        and turn.side == "gptoss-mlx"
        else turn
        for turn in told
    ]


def results(
    told: list[Turn],
    sides: tuple[SideName, ...] = SIDES,
    *,
    workload: Workload = WORKLOAD,
    notes: tuple[str, ...] = (),
    is_complete: bool = True,
) -> Results:
    """Of a 20b on an M4 Pro."""
    model = ModelFacts("20b", 24, 32, "q8", 12 * GIB)
    planned = Planned(model, workload, notes, {"gptoss-mlx": READ, "mlx-lm": READ})
    bandwidth = Bandwidth(245e9, 273e9, "M4 Pro")
    return Results(SYSTEM, planned, sides, 3, bandwidth, tuple(told), is_complete)


def processes() -> list[psutil.Process]:
    """Those of this one that measure now."""
    children = psutil.Process().children()
    return [process for process in children if "gptoss_mlx.bench.child" in process.cmdline()]
