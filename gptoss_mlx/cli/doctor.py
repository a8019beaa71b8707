"""`gptoss-mlx doctor`: what is installed, what this machine is, and what is not well with it.

What it says is a list of findings, each ok, a warning or a problem, which the package `doctor`
makes.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from gptoss_mlx.cli.common import debug_option, show_passing, styled

if TYPE_CHECKING:
    from gptoss_mlx.doctor import Finding, Level
    from gptoss_mlx.kernels.choice import Trial

__all__ = ["doctor"]

_TABLE_WIDTH = 100
_COLOURS: dict[Level, str] = {"ok": "green", "warning": "yellow", "problem": "red"}


@click.command()
@click.option("--deep", is_flag=True, help="Read installed models again, and compare their hashes.")
@click.option("--online", is_flag=True, help="See whether the Hub answers, too.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@debug_option
def doctor(deep: bool, online: bool, as_json: bool) -> int:
    """Check this machine: system, memory, disks, models, sandbox, Metal kernels.

    A line each: ok, a warning, or a problem, with what to do. Each kernel must give what MLX's own
    operations give, and serves where it is faster; what is found of them is kept for later runs.
    The exit code is 1 if there is a problem.
    """
    findings: list[Finding] = []
    for finding in _findings(deep=deep, online=online):
        findings.append(finding)
        if not as_json:
            _show(finding)
    is_well = all(finding.level != "problem" for finding in findings)
    if as_json:
        report = {"ok": is_well, "findings": [_as_dict(finding) for finding in findings]}
        click.echo(json.dumps(report, ensure_ascii=False))
    return 0 if is_well else 1


def _findings(*, deep: bool, online: bool) -> Iterator[Finding]:
    from gptoss_mlx import doctor as checks

    models = partial(checks.check_models, deep=deep, on_progress=show_passing)
    yield from checks.examine("system", checks.check_system)
    yield from checks.examine("packages", checks.check_packages)
    yield from checks.examine("device", checks.check_device)
    yield from checks.examine("memory", checks.check_memory)
    yield from checks.examine("disks", checks.check_disks)
    yield from checks.examine("models", models)
    yield from checks.examine("vocabulary", checks.check_vocabulary)
    yield from checks.examine("sandbox", checks.check_sandbox)
    yield from checks.examine("port", checks.check_port)
    yield from checks.examine("variables", checks.check_variables)
    if online:
        yield from checks.examine("Hub", checks.check_hub)
    yield from checks.examine("kernels", partial(checks.check_kernels, show_passing))


def _show(finding: Finding) -> None:
    level = f"{finding.level:8}"
    if styled(sys.stdout):
        level = click.style(level, fg=_COLOURS[finding.level])
    click.echo(f"{level} {finding.name + ':':13} {finding.text}")
    if finding.trials:
        _show_table(finding.trials)


def _show_table(trials: tuple[Trial, ...]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD)
    for title in ("kernel", "error"):
        table.add_column(title, no_wrap=True)
    table.add_column("size: ms / MLX's = ratio", no_wrap=True)
    table.add_column("verdict")
    for trial in trials:
        error = "" if trial.error is None else f"{trial.error:.1e}"
        times = "\n".join(
            f"{size}: {ours * 1e3:.3f} / {mlx * 1e3:.3f} = {ours / mlx:.2f}"
            for size, ours, mlx in trial.times
        )
        table.add_row(*(Text(cell) for cell in (trial.kernel, error, times, _verdict(trial))))
    console = Console()
    console.width = max(console.width, _TABLE_WIDTH)  # narrower, and columns would be left out
    console.print(table)


def _verdict(trial: Trial) -> str:
    if trial.why_off:
        return f"off: {trial.why_off}"
    if len(trial.faster_at) == len(trial.times):
        return "on"
    return f"on at {', '.join(map(str, trial.faster_at))}: elsewhere MLX is faster"


def _as_dict(finding: Finding) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "name": finding.name,
        "level": finding.level,
        "text": finding.text,
    }
    if finding.trials:
        fields["kernels"] = [_trial_as_dict(trial) for trial in finding.trials]
    return fields


def _trial_as_dict(trial: Trial) -> dict[str, Any]:
    return {
        "name": trial.kernel,
        "error": trial.error,
        "times": [
            {"size": size, "seconds": ours, "mlx_seconds": mlx} for size, ours, mlx in trial.times
        ],
        "on": trial.why_off is None,
        "verdict": _verdict(trial),
    }
