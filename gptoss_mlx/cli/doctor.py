"""`gptoss-mlx doctor`: what is installed, what this machine is, and which kernels serve on it.

What it says is a list of findings, each with a name, a text, and whether all is well.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import click

from gptoss_mlx.cli.common import debug_option, styled

if TYPE_CHECKING:
    from gptoss_mlx.kernels.choice import Trial

__all__ = ["Finding", "doctor"]

_CLEAR_LINE = "\r\x1b[K"  # to the start of the terminal's line, and erase it
_TABLE_WIDTH = 100
_PACKAGES = ("gptoss-mlx", "mlx", "mlx-lm")


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at; `trials` are those of kernels."""

    name: str
    text: str
    ok: bool = True
    trials: tuple[Trial, ...] = ()


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@debug_option
def doctor(as_json: bool) -> int:
    """Check this machine: versions, and every Metal kernel against MLX.

    Each kernel must give what MLX's own operations give, and serves where it is faster. What is
    found is kept for later runs. The exit code is 1 if something is wrong.
    """
    findings: list[Finding] = []
    for finding in _findings():
        findings.append(finding)
        if not as_json:
            _show(finding)
    ok = all(finding.ok for finding in findings)
    if as_json:
        report = {"ok": ok, "findings": [_as_dict(finding) for finding in findings]}
        click.echo(json.dumps(report, ensure_ascii=False))
    return 0 if ok else 1


def _findings() -> Iterator[Finding]:
    yield Finding("Python", platform.python_version())
    yield from (_package(name) for name in _PACKAGES)
    yield _device()
    yield _kernels()


def _package(name: str) -> Finding:
    try:
        return Finding(name, version(name))
    except PackageNotFoundError:
        return Finding(name, "not installed", ok=False)


def _device() -> Finding:
    from gptoss_mlx.kernels import choice

    system = f"{platform.system()} {platform.release()}, {platform.machine()}"
    return Finding("device", f"{choice.device() or 'CPU'} ({system})")


def _kernels() -> Finding:
    from gptoss_mlx.kernels import check, choice

    setting, here = choice.setting(), choice.device()  # the setting first: it may be wrong
    if here is None:
        text = "not used: they need Metal, and MLX has no Metal GPU here"
        if choice.is_forced():
            return Finding("kernels", f"{text}; unset {choice.VARIABLE}", ok=False)
        return Finding("kernels", text)
    try:
        trials = check.try_all(here, on_kernel=_progress)
    finally:
        _progress(None)
    text, ok = _summary(trials)
    if setting != "auto":
        text += f"; {choice.VARIABLE}={os.environ[choice.VARIABLE]} overrides this"
    return Finding("kernels", text, ok, tuple(trials))


def _summary(trials: list[Trial]) -> tuple[str, bool]:
    bad = [trial.kernel for trial in trials if trial.problem]
    on = sum(trial.why_off is None for trial in trials)
    text = f"{on} of {len(trials)} on"
    return (f"{text}; broken: {', '.join(bad)}", False) if bad else (text, True)


def _progress(kernel: str | None) -> None:
    """Which kernel is being tried, in a line that vanishes; only where stderr is a terminal."""
    if styled(sys.stderr):
        text = f"Trying {kernel} ..." if kernel else ""
        click.secho(_CLEAR_LINE + text, nl=False, err=True, dim=True)


def _show(finding: Finding) -> None:
    click.echo(f"{finding.name + ':':12}{finding.text}")
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
    fields: dict[str, Any] = {"name": finding.name, "text": finding.text, "ok": finding.ok}
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
