"""How much memory a model may take, what fits into it, and Metal's limit if somebody set it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from gptoss_mlx.doctor.finding import Finding
from gptoss_mlx.doctor.machine import sysctl

if TYPE_CHECKING:
    from gptoss_mlx.fit import Machine

__all__ = ["check_memory"]


def check_memory() -> Iterator[Finding]:
    """The ceiling, the limit, and the variant that `fit` recommends."""
    from gptoss_mlx.fit import this_machine

    machine = this_machine()
    ceiling = machine.ceiling
    of_all = f" of {ceiling.physical / 2**30:.0f} GiB" if ceiling.physical else ""
    text = f"{ceiling.nbytes / 2**30:.2f} GiB{of_all} for a model ({ceiling.source})"
    yield Finding("memory", text)
    if sys.platform == "darwin" and ceiling.physical:
        yield _wired_limit(ceiling.physical)
    yield _fitting(machine)


def _wired_limit(physical: int) -> Finding:
    from gptoss_mlx.ceiling import Ceiling

    limit = int(sysctl("iogpu.wired_limit_mb") or 0) << 20
    if not limit:
        return Finding("wired limit", "macOS's own (gptoss-mlx fit tells whether more would help)")
    safe = Ceiling(0, "", physical).safe_wired_limit
    text = f"iogpu.wired_limit_mb={limit >> 20}"
    if limit <= safe:
        return Finding("wired limit", text)
    left = (physical - limit) / 2**30
    advice = f"sudo sysctl iogpu.wired_limit_mb={safe >> 20}"
    return Finding("wired limit", f"{text} leaves macOS only {left:.1f} GiB: {advice}", "warning")


def _fitting(machine: Machine) -> Finding:
    from gptoss_mlx.fit import recommend

    best = recommend(machine=machine)
    if best.model is None:
        return Finding("fit", best.reason, "warning")
    return Finding("fit", f"{best.reason}; gptoss-mlx fit has more")
