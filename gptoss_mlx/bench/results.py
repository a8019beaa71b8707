"""What was measured: medians over the rounds, ratios, shares of the roofline; all of it as JSON.

It measures nothing. A round that was cut short counts with the readings that it has. It does not
know how figures are shown to people.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

from gptoss_mlx.bench.events import Failure, Loaded, Reading
from gptoss_mlx.bench.machine import System
from gptoss_mlx.bench.planning import Planned
from gptoss_mlx.bench.roofline import Bandwidth
from gptoss_mlx.bench.sides import SideName
from gptoss_mlx.bench.turns import Turn
from gptoss_mlx.bench.workload import TURN
from gptoss_mlx.sequence import common_prefix

__all__ = ["FIGURES", "Figure", "Kind", "Results", "Spread", "as_dict", "facts_of"]

Kind = Literal["context", "batch"]
Figure = Literal["prefill", "decode", "first_token_seconds", "next_turn_seconds", "peak_bytes"]
FIGURES: dict[Kind, tuple[Figure, ...]] = {
    "context": ("prefill", "decode", "first_token_seconds", "next_turn_seconds", "peak_bytes"),
    "batch": ("decode", "peak_bytes"),
}
_OF: dict[Figure, Callable[[Reading], float | None]] = {
    "prefill": lambda reading: reading.size / reading.cold if reading.cold else None,
    "decode": lambda reading: reading.decode,
    "first_token_seconds": lambda reading: reading.cold,
    "next_turn_seconds": lambda reading: reading.warm,
    "peak_bytes": lambda reading: reading.peak,
}


@dataclass(frozen=True)
class Spread:
    """A figure over the rounds."""

    rounds: tuple[float, ...]

    @property
    def median(self) -> float:
        """Of the rounds there are."""
        return statistics.median(self.rounds)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        low, high = min(self.rounds), max(self.rounds)
        return {"median": self.median, "min": low, "max": high, "rounds": list(self.rounds)}


@dataclass(frozen=True)
class Results:
    """All that a report is made of. turns: as they came. is_complete: nobody stopped it early."""

    system: System
    planned: Planned
    sides: tuple[SideName, ...]
    rounds: int
    bandwidth: Bandwidth
    turns: tuple[Turn, ...]
    is_complete: bool = True

    def sizes(self, kind: Kind) -> tuple[int, ...]:
        """The contexts or the batches of which there is a reading."""
        workload = self.planned.workload
        wanted = workload.contexts if kind == "context" else workload.batches
        return tuple(n for n in wanted if any(self.readings(s, kind, n) for s in self.sides))

    def readings(self, side: SideName, kind: Kind | None = None, size: int = 0) -> list[Reading]:
        """One side's, of everything or of one context or batch."""
        events = [turn.event for turn in self.turns if turn.side == side]
        found = [event for event in events if isinstance(event, Reading)]
        return [r for r in found if kind is None or (r.kind, r.size) == (kind, size)]

    def spread(self, side: SideName, kind: Kind, size: int, figure: Figure) -> Spread | None:
        """A figure over the rounds, if there is any."""
        values = [_OF[figure](reading) for reading in self.readings(side, kind, size)]
        known = tuple(value for value in values if value is not None)
        return Spread(known) if known else None

    def median(self, side: SideName, kind: Kind, size: int, figure: Figure) -> float | None:
        """Of a figure, if there is any; of a prompt's rate that of its time, so that both agree."""
        if figure == "prefill":
            seconds = self.median(side, kind, size, "first_token_seconds")
            return size / seconds if seconds else None
        spread = self.spread(side, kind, size, figure)
        return spread.median if spread else None

    def ratio(self, kind: Kind, size: int, figure: Figure) -> float | None:
        """Ours by theirs; None if one is missing."""
        ours, theirs = (self.median(side, kind, size, figure) for side in self.sides)
        return ours / theirs if ours is not None and theirs else None

    def roofline(self, side: SideName, context: int) -> float:
        """Tokens a second that the bandwidth allows."""
        return self.bandwidth.best / self.planned.read_bytes[side][context]

    def share(self, side: SideName, context: int) -> float | None:
        """Of the roofline."""
        rate = self.median(side, "context", context, "decode")
        return None if rate is None else rate / self.roofline(side, context)

    def loaded(self, side: SideName) -> list[Loaded]:
        """Each time it was loaded."""
        events = [turn.event for turn in self.turns if turn.side == side]
        return [event for event in events if isinstance(event, Loaded)]

    @property
    def failures(self) -> list[tuple[SideName, Failure]]:
        """Sides that failed, and why."""
        return [(t.side, t.event) for t in self.turns if isinstance(t.event, Failure)]


def as_dict(results: Results) -> dict[str, Any]:
    """Everything, for scripts."""
    planned = results.planned
    settings = {k: v for k, v in asdict(planned.workload).items() if k != "folder"}
    return {
        "machine": asdict(results.system),
        "model": asdict(planned.model),
        "settings": {**settings, "turn": TURN, "rounds": results.rounds},
        "bandwidth": {**asdict(results.bandwidth), "used": results.bandwidth.best},
        "sides": {side: facts_of(results, side) for side in results.sides},
        "contexts": [_row(results, "context", size) for size in results.sizes("context")],
        "batches": [_row(results, "batch", size) for size in results.sizes("batch")],
        "left_out": list(planned.notes),
        "failures": {side: failure.text for side, failure in results.failures},
        "complete": results.is_complete and not results.failures,
    }


def facts_of(results: Results, side: SideName) -> dict[str, Any]:
    """What is known of a side as a whole; nothing if it was never loaded."""
    loaded = results.loaded(side)
    if not loaded:
        return {}
    return {
        "dtype": loaded[0].dtype,
        "kernels": loaded[0].kernels,
        "load_seconds": Spread(tuple(each.seconds for each in loaded)).as_dict(),
        "weights_bytes": loaded[0].nbytes,
        "peak_rss_bytes": max((r.rss for r in results.readings(side)), default=0),
    }


def _row(results: Results, kind: Kind, size: int) -> dict[str, Any]:
    """Figures of each side, and ratios of their medians."""
    row: dict[str, Any] = {kind: size}
    for side in results.sides:
        row[side] = {
            figure: {**spread.as_dict(), "median": results.median(side, kind, size, figure)}
            for figure in FIGURES[kind]
            if (spread := results.spread(side, kind, size, figure))
        }
        if kind == "context":
            row[side] |= _more_of_context(results, side, size)
    ours, *others = (results.readings(side, kind, size) for side in results.sides)
    if ours and others and others[0]:
        row["ratios"] = {figure: results.ratio(kind, size, figure) for figure in FIGURES[kind]}
        if kind == "context":
            row["equal_tokens"] = common_prefix(ours[0].ids, others[0][0].ids)
    return row


def _more_of_context(results: Results, side: SideName, context: int) -> dict[str, Any]:
    share = results.share(side, context)
    if share is None:
        return {}
    return {
        "read_bytes": results.planned.read_bytes[side][context],
        "roofline_share": share,
        "next_turn_cached_tokens": results.readings(side, "context", context)[0].cached,
    }
