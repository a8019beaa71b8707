"""Results as lines for people: tables in Markdown, which an issue shows as such, and notes.

It says nothing that is not in the results.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from gptoss_mlx.bench.results import FIGURES, Figure, Kind, Results, facts_of
from gptoss_mlx.bench.sides import SIDES, SideName
from gptoss_mlx.bench.workload import TURN

__all__ = ["as_text", "show_rate"]

_OURS = SIDES[0]


def show_rate(value: float) -> str:
    """Three digits or more."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _time(seconds: float) -> str:
    return f"{show_rate(seconds)} s" if seconds >= 1 else f"{seconds * 1e3:.0f} ms"


def _gib(nbytes: float) -> str:
    return f"{nbytes / 2**30:.2f}"


_SHOWN: dict[Figure, tuple[str, Callable[[float], str]]] = {
    "prefill": ("prefill", show_rate),
    "decode": ("decode", show_rate),
    "first_token_seconds": ("TTFT", _time),
    "next_turn_seconds": ("warm", _time),
    "peak_bytes": ("GiB", _gib),
}


def as_text(results: Results) -> Iterator[str]:
    """Lines for people, which an issue shows as tables."""
    yield from _heading(results)
    for kind in FIGURES:
        if results.sizes(kind):
            yield from ("", *_markdown(_table(results, kind)))
    yield ""
    yield from (f"- {note}" for note in _notes(results))


def _heading(results: Results) -> Iterator[str]:
    model = results.planned.model
    yield from results.system.lines
    size = (
        f"{model.layers} layers, {model.experts} experts, {model.variant}, {_gib(model.nbytes)} GiB"
    )
    yield f"{model.name} ({size})"
    for side in results.sides:
        if facts := facts_of(results, side):
            yield f"{side}: {', '.join(_words(facts))}"


def _words(facts: dict[str, Any]) -> Iterator[str]:
    yield facts["dtype"]
    if facts["kernels"]:
        yield facts["kernels"]
    yield f"loaded in {_time(facts['load_seconds']['median'])}"
    yield f"weights {_gib(facts['weights_bytes'])} GiB"
    yield f"peak RSS {_gib(facts['peak_rss_bytes'])} GiB"


def _table(results: Results, kind: Kind) -> Iterator[list[str]]:
    compares = len(results.sides) > 1
    titles = [_SHOWN[figure][0] for figure in FIGURES[kind]]
    yield [kind, *[""] * compares, *titles, *["roofline"] * (kind == "context")]
    for size in results.sizes(kind):
        for side in results.sides:
            label = f"{size:,}" if side == _OURS else ""
            yield [label, *[side] * compares, *_cells(results, kind, size, side)]
        if compares:
            ratios = [results.ratio(kind, size, figure) for figure in FIGURES[kind]]
            cells = [f"{ratio:.2f}" if ratio else "-" for ratio in ratios]
            yield ["", "ratio", *cells, *[""] * (kind == "context")]


def _cells(results: Results, kind: Kind, size: int, side: SideName) -> Iterator[str]:
    for figure in FIGURES[kind]:
        median = results.median(side, kind, size, figure)
        yield "-" if median is None else _SHOWN[figure][1](median)
    if kind == "context":
        share = results.share(side, size)
        yield "-" if share is None else f"{share:.0%}"


def _markdown(rows: Iterator[list[str]]) -> Iterator[str]:
    """Columns as wide as they need to be; words to the left, numbers to the right."""
    head, *body = rows
    widths = [max(3, *map(len, column)) for column in zip(head, *body, strict=True)]
    is_text = [not title for title in head]
    rules = [
        ":" + "-" * (width - 1) if text else "-" * (width - 1) + ":"
        for width, text in zip(widths, is_text, strict=True)
    ]
    for row in (head, rules, *body):
        cells = (
            cell.ljust(width) if text else cell.rjust(width)
            for cell, width, text in zip(row, widths, is_text, strict=True)
        )
        yield f"| {' | '.join(cells)} |"


def _notes(results: Results) -> Iterator[str]:
    """What the figures are, and are not."""
    workload = results.planned.workload
    yield (
        f"medians of {_rounds(results)}{_largest_spread(results)}; "
        f"{workload.tokens} tokens decoded, greedily"
    )
    yield (
        "prefill, decode: tok/s; TTFT: time to the first token, nothing cached; warm: the same for "
        f"the next turn, of {TURN} tokens"
    )
    if results.sizes("batch"):
        first = workload.contexts[0]
        yield f"batch: so many sequences decode together, each after a prompt of {first:,} tokens"
    yield "GiB: what MLX held at most"
    yield from _roofline_notes(results)
    yield from _setting_notes(results)
    yield from results.planned.notes
    yield from (f"{side} failed: {failure.text}" for side, failure in results.failures)


def _rounds(results: Results) -> str:
    if results.is_complete:
        return f"{results.rounds} round{'s' * (results.rounds > 1)}"
    last = max((turn.round for turn in results.turns), default=0)
    return f"what there was when it was stopped, in round {last + 1} of {results.rounds}"


def _roofline_notes(results: Results) -> Iterator[str]:
    bandwidth, read = results.bandwidth, results.planned.read_bytes[_OURS]
    measured = f"{bandwidth.measured / 1e9:.0f} GB/s as MLX reads an array here"
    source = measured
    if bandwidth.specified:
        source = f"{bandwidth.specified / 1e9:.0f} GB/s ({bandwidth.chip}; {measured})"
    needed = ", ".join(f"{nbytes / 1e9:.3g} GB at {context:,}" for context, nbytes in read.items())
    yield f"roofline: {source}, by what is read for a token: {needed}"


def _setting_notes(results: Results) -> Iterator[str]:
    workload, compares = results.planned.workload, len(results.sides) > 1
    only = ": gptoss-mlx only" if compares else ""
    if workload.kv_bits == 8:
        yield f"keys and values in 8 bits{only}"
    if workload.embedding == "disk":
        yield f"embedding table on disk{only}"
    if compares:
        yield "ratio: gptoss-mlx by mlx-lm"
    if compares and not results.system.on_gpu:
        yield "mlx-lm in float32, too: in the checkpoint's bfloat16 MLX is slow on a CPU"


def _largest_spread(results: Results) -> str:
    """How far rounds lie apart in decoding, at worst."""
    spreads = [
        results.spread(side, kind, size, "decode")
        for side in results.sides
        for kind in FIGURES
        for size in results.sizes(kind)
    ]
    apart = [max(s.rounds) / min(s.rounds) - 1 for s in spreads if s and len(s.rounds) > 1]
    return f", whose decode rates differ by up to {max(apart):.0%}" if apart else ""
