"""Decode rates as bars, for a terminal: a group for each context or batch, a bar for each side.

Contexts are few and far apart, so each has its own bars and no axis is needed. It does not know
colours: a line says whose bar it shows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from gptoss_mlx.bench.results import Kind, Results
from gptoss_mlx.bench.sides import SIDES, SideName
from gptoss_mlx.bench.text import show_rate

__all__ = ["Bar", "Line", "draw", "plot"]

ROOFLINE = "roofline"
_BLOCKS = " ▏▎▍▌▋▊▉█"  # eighths of a column
_SHADE, _BEYOND = "░", "›"
_MOST = 4  # of the fastest side: a bar that is longer is cut off there


@dataclass(frozen=True)
class Bar:
    """One rate. name: of a side, or roofline."""

    name: str
    rate: float


@dataclass(frozen=True)
class Line:
    """A line of the plot; name: whose bar it shows, empty in headings."""

    text: str
    name: str = ""


def plot(results: Results, width: int) -> Iterator[Line]:
    """All rates of decoding, in so many columns."""
    contexts = results.sizes("context")
    if contexts:
        yield Line("decode tok/s by context")
        yield from draw([(f"{n:,}", list(_of_context(results, n))) for n in contexts], width)
    batches = results.sizes("batch")
    if batches:
        yield Line("")
        yield Line("decode tok/s of all sequences by batch")
        yield from draw([(f"{n:,}", list(_of_batch(results, n))) for n in batches], width)


def draw(groups: Sequence[tuple[str, Sequence[Bar]]], width: int) -> Iterator[Line]:
    """Bars by group, all on one scale that begins at 0."""
    bars = [bar for _, group in groups for bar in group]
    if not bars:
        return
    fastest = max((bar.rate for bar in bars if bar.name != ROOFLINE), default=0)
    most = min(max(bar.rate for bar in bars), _MOST * fastest)
    label_width = max(len(label) for label, _ in groups)
    name_width = max(len(bar.name) for bar in bars)
    value_width = max(len(show_rate(bar.rate)) for bar in bars)
    room = max(8, width - label_width - name_width - value_width - 3)
    for label, group in groups:
        for n, bar in enumerate(group):
            start = f"{'' if n else label:>{label_width}} {bar.name:{name_width}}"
            drawn = _drawn(bar, most, room)
            yield Line(f"{start} {drawn} {show_rate(bar.rate)}", bar.name)


def _drawn(bar: Bar, most: float, room: int) -> str:
    if bar.rate > most:
        return _SHADE * (room - 1) + _BEYOND
    eighths = round(8 * room * bar.rate / most)
    if bar.name == ROOFLINE:
        return _SHADE * max(1, eighths // 8)
    full, rest = divmod(eighths, 8)
    return _BLOCKS[8] * full + _BLOCKS[rest].strip()


def _of_context(results: Results, context: int) -> Iterator[Bar]:
    for side in results.sides:
        yield from _of_side(results, side, "context", context)
    yield Bar(ROOFLINE, results.roofline(SIDES[0], context))


def _of_batch(results: Results, batch: int) -> Iterator[Bar]:
    for side in results.sides:
        yield from _of_side(results, side, "batch", batch)


def _of_side(results: Results, side: SideName, kind: Kind, size: int) -> Iterator[Bar]:
    rate = results.median(side, kind, size, "decode")
    if rate is not None:
        yield Bar(side, rate)
