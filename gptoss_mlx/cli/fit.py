"""`gptoss-mlx fit`: which model fits, on this machine or on any Mac, and how fast it may be."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, cast

import click

from gptoss_mlx.cli.common import debug_option

if TYPE_CHECKING:
    from gptoss_mlx.fit import Fit, Machine, ModelName, Recommendation, Row, Speed, Wish

__all__ = ["fit"]

_NO_BREAK = "\N{NO-BREAK SPACE}"


class _Memory(click.ParamType[int]):
    """A Mac's memory as it is sold: 16, 16GB."""

    name = "memory"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Whole gigabytes."""
        match = re.fullmatch(r"\s*([1-9]\d{0,3})\s*(?:g|gb|gib)?\s*", str(value).lower())
        return (
            int(match[1]) if match else self.fail(f"{value!r} is no size such as 16GB", param, ctx)
        )


@click.command()
@click.argument("model", type=click.Choice(["20b", "120b"]), required=False)
@click.option("--context", type=click.IntRange(1), metavar="TOKENS", help="That is to fit.")
@click.option(
    "--parallel",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Sequences of that context at once.",
)
@click.option("--memory", type=_Memory(), metavar="16GB", help="Of another Mac than this one.")
@click.option("--chip", metavar="NAME", help="Of that Mac, such as 'M4 Pro'; needs --memory.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@debug_option
def fit(
    model: str | None,
    context: int | None,
    parallel: int,
    memory: int | None,
    chip: str | None,
    as_json: bool,
) -> int:
    """Show what each variant of a model needs, and which one to take.

    Works on any machine for any Mac: --memory 16GB. What does not fit here is refused by convert,
    chat and serve, too. The exit code is 1 if nothing fits (or not with --context).
    """
    from gptoss_mlx.fit import MODELS, Wish, recommend
    from gptoss_mlx.fit import fit as fit_model

    machine, wish = _machine(memory, chip), Wish(context, parallel)
    names = (cast("ModelName", model),) if model else tuple(MODELS)
    fits = [fit_model(name, machine, wish) for name in names]
    best = recommend(names, machine, wish)
    raised = recommend(names, machine.raised, wish) if machine.raised else None
    if raised is not None and not _is_better(raised, best):
        raised = None
    if as_json:
        click.echo(json.dumps(_report(fits, best, raised), ensure_ascii=False))
    else:
        click.echo("\n".join(_lines(fits, best, raised)))
    return 0 if best.context >= (context or 1) else 1


def _machine(memory: int | None, chip: str | None) -> Machine:
    from gptoss_mlx.fit import a_mac, this_machine

    if memory is not None:
        return a_mac(memory, chip)
    if chip is not None:
        raise click.UsageError("--chip needs --memory: how much that Mac has")
    return this_machine()


def _is_better(raised: Recommendation, best: Recommendation) -> bool:
    kept = ("model", "variant", "context")
    return any(getattr(raised, name) != getattr(best, name) for name in kept)


def _lines(fits: list[Fit], best: Recommendation, raised: Recommendation | None) -> Iterator[str]:
    """Everything, for people."""
    machine, wish = fits[0].machine, fits[0].wish
    yield f"{machine.name}: {_gib(machine.ceiling.nbytes)} for a model ({machine.ceiling.source})"
    for found in fits:
        yield from ("", f"gpt-oss-{found.model}")
        yield from _table(found)
    yield ""
    if best.model and wish.context and best.context < wish.context:
        yield f"{wish.context:,} tokens of context do not fit."
    if best.model:
        yield f"Take the {best.model}: {_summary(best)}"
        yield from _commands(best, wish)
    else:
        yield f"Nothing fits. {best.reason}."
    if raised is not None and raised.model:
        limit = machine.ceiling.safe_wired_limit >> 20
        yield "Better with Metal's limit raised, until the next start (macOS keeps enough):"
        yield f"  sudo sysctl iogpu.wired_limit_mb={limit}"
        yield f"  then the {raised.model}: {_summary(raised)}"
        yield from _commands(raised, wish)
    yield from ("", *_notes(machine, best if best.model else raised, wish))


def _table(found: Fit) -> Iterator[str]:
    """One line for each variant."""
    head = ["dense", "embedding", "KV", f"needs at {found.wish.basis:,}", "left", "context"]
    is_raised = found.machine.raised is not None
    head += ["limit raised"] * is_raised + ["tok/s"]
    rows = [head, *(_cells(row, is_raised=is_raised) for row in found.rows)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row, is_best in zip(rows, [False, *(row is found.best for row in found.rows)], strict=True):
        cells = [
            cell.ljust(width) if n < 3 else cell.rjust(width)
            for n, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  " + "  ".join(cells) + "  <-" * is_best


def _cells(row: Row, *, is_raised: bool) -> list[str]:
    variant, left = row.variant, row.plan.ceiling.nbytes - row.needed
    raised = [_context(row.raised.context if row.raised else 0)] * is_raised
    return [
        variant.dense,
        variant.embedding,
        str(variant.kv_bits),
        _gib(row.needed),
        _gib(left),
        _context(row.plan.context),
        *raised,
        _rate(row.speed) if row.fits or (row.raised and row.raised.context) else "-",
    ]


def _context(tokens: int) -> str:
    return f"{tokens:,}" if tokens else "no"


def _rate(speed: Speed | None) -> str:
    return f"{speed.low:.0f}-{speed.high:.0f}" if speed else "?"


def _summary(found: Recommendation) -> str:
    return f"{_label(found)}; {found.context:,} tokens of context fit"


def _label(found: Recommendation) -> str:
    return found.variant.label if found.variant else ""


def _commands(found: Recommendation, wish: Wish) -> Iterator[str]:
    if found.variant is None:
        return
    dense = "" if found.variant.dense == "q8" else f" --dense {found.variant.dense}"
    options = "".join(f" {option}" for option in found.variant.options)
    context = f" --context {min(wish.context, found.context)}" if wish.context else ""
    yield f"  gptoss-mlx download {found.model} --convert{dense}"
    if wish.parallel > 1:
        options += f" --parallel {wish.parallel}"
    command = "serve" if wish.parallel > 1 else "chat"
    name = f"gpt-oss-{found.model}-{found.variant.dense}"  # 20b may mean another one besides
    yield f"  gptoss-mlx {command} --model {name}{options}{context}"


def _notes(machine: Machine, found: Recommendation | None, wish: Wish) -> Iterator[str]:
    """What the figures are, and are not."""
    from gptoss_mlx.fit import SHARES, speed

    yield "context: tokens of a sequence that fit at most; no: chat and serve refuse that variant,"
    yield "  and convert refuses a --dense with which none fits"
    if not machine.is_here and machine.raised:
        yield "  macOS 26 allows more than macOS 15: something between context and limit raised"
    if not machine.chips:
        yield "tok/s: not estimated, since this chip's bandwidth is not known here"
        return
    low, high = SHARES
    yield (
        f"tok/s: estimated, not measured: {low:.0%} to {high:.0%} (as published runs of MLX and "
        "llama.cpp reach) of"
    )
    yield f"  bandwidth / bytes read for a token after {wish.basis:,} tokens; one sequence, decode"
    if len(machine.chips) > 1 and found is not None and found.model:
        rates = (f"{chip.name} {_rate(speed(found.read_bytes, [chip]))}" for chip in machine.chips)
        bound = (rate.replace(" ", _NO_BREAK) for rate in rates)
        text = f"{found.model}, {_label(found)}: {', '.join(bound)}"
        for line in textwrap.wrap(text, 96, initial_indent="  ", subsequent_indent="    "):
            yield line.replace(_NO_BREAK, " ")


def _report(fits: list[Fit], best: Recommendation, raised: Recommendation | None) -> dict[str, Any]:
    """Everything, for scripts."""
    from gptoss_mlx.fit import SHARES

    machine, wish = fits[0].machine, fits[0].wish
    return {
        "machine": {
            "name": machine.name,
            "ceiling_bytes": machine.ceiling.nbytes,
            "source": machine.ceiling.source,
            "raised_ceiling_bytes": machine.ceiling.safe_wired_limit or None,
            "chips": [{"name": c.name, "gigabytes_per_second": c.bandwidth} for c in machine.chips],
        },
        "context": wish.context,
        "parallel": wish.parallel,
        "models": [
            {"model": found.model, "variants": [_row_as_dict(row) for row in found.rows]}
            for found in fits
        ],
        "recommendation": _recommendation_as_dict(best),
        "with_limit_raised": _recommendation_as_dict(raised) if raised else None,
        "estimate": {
            "formula": "share * bandwidth / read_bytes",
            "shares": SHARES,
            "context": wish.basis,
        },
    }


def _row_as_dict(row: Row) -> dict[str, Any]:
    return {
        **asdict(row.variant),
        "verdict": row.plan.verdict,
        "context": row.plan.context,
        "needed_bytes": row.needed,
        "left_bytes": row.plan.ceiling.nbytes - row.needed,
        "context_with_limit_raised": row.raised.context if row.raised else None,
        "read_bytes": row.read_bytes,
        "tokens_per_second": _speed_as_list(row.speed),
    }


def _recommendation_as_dict(found: Recommendation) -> dict[str, Any]:
    return {**asdict(found), "speed": _speed_as_list(found.speed)}


def _speed_as_list(speed: Speed | None) -> list[float] | None:
    return [round(speed.low, 1), round(speed.high, 1)] if speed else None


def _gib(nbytes: int) -> str:
    return f"{nbytes / 2**30:.2f} GiB"
