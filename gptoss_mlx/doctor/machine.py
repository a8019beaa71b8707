"""System, Python, packages, the GPU and the kernels on it."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from typing import TYPE_CHECKING

from gptoss_mlx.doctor.finding import Finding

if TYPE_CHECKING:
    from gptoss_mlx.kernels.choice import Trial

__all__ = ["Progress", "check_device", "check_kernels", "check_packages", "check_system", "sysctl"]

Progress = Callable[[str | None], object]  # is told what is being done, at last None
_SHOWN = ("gptoss-mlx", "mlx", "mlx-lm")
_OLDEST_MACOS = 14  # that MLX runs on
_WIRING_MACOS = 15  # that keeps a model from being swapped out


def check_system() -> Iterator[Finding]:
    """The system and its processor, and the Python that runs."""
    yield _macos() if sys.platform == "darwin" else _elsewhere()
    yield Finding("Python", f"{platform.python_version()} ({sys.executable})")


def _elsewhere() -> Finding:
    system = f"{platform.system()} {platform.release()}, {platform.machine()}"
    return Finding("system", f"{system}: no Mac, so models run on the CPU, slowly")


def _macos() -> Finding:
    release = platform.mac_ver()[0]
    chip = sysctl("machdep.cpu.brand_string") or platform.machine()
    text = f"macOS {release}, {chip}"
    if sysctl("sysctl.proc_translated") == "1":
        return Finding(
            "system", f"{text}: this Python is for Intel; install an arm64 one", "problem"
        )
    if platform.machine() != "arm64":
        return Finding("system", f"{text}: MLX needs a Mac with Apple silicon", "problem")
    major = int(release.partition(".")[0] or 0)
    if major < _OLDEST_MACOS:
        return Finding("system", f"{text}: MLX needs macOS {_OLDEST_MACOS}; update it", "problem")
    if major < _WIRING_MACOS:
        advice = f"from {_WIRING_MACOS} on models are not swapped out; update it"
        return Finding("system", f"{text}: {advice}", "warning")
    return Finding("system", text)


def sysctl(name: str) -> str:
    """A value of the system's; empty where there is none."""
    command = ["/usr/sbin/sysctl", "-n", name]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()


def check_packages() -> Iterator[Finding]:
    """Versions of the ones that matter most, and whether all others are as required."""
    yield from (_package(name) for name in _SHOWN)
    wrong = sorted(_wrong_packages())
    count = len(list(_requirements()))
    if wrong:
        text = f"{'; '.join(wrong)}: install gptoss-mlx anew (in its clone: pip install -e .)"
        yield Finding("packages", text, "problem")
    else:
        yield Finding("packages", f"all {count} that are needed are there")


def _package(name: str) -> Finding:
    try:
        return Finding(name, version(name))
    except PackageNotFoundError:
        return Finding(name, f"not installed: pip install {name}", "problem")


def _wrong_packages() -> Iterator[str]:
    from packaging.requirements import Requirement

    for line in _requirements():
        requirement = Requirement(line)
        try:
            have = version(requirement.name)
        except PackageNotFoundError:
            yield f"{requirement.name} is not installed"
            continue
        if not requirement.specifier.contains(have, prereleases=True):
            yield f"{requirement.name} is {have}, not {requirement.specifier}"


def _requirements() -> Iterator[str]:
    """What gptoss-mlx itself needs on this system."""
    from packaging.requirements import Requirement

    for line in requires("gptoss-mlx") or []:
        marker = Requirement(line).marker
        if marker is None or marker.evaluate({"extra": ""}):
            yield line


def check_device() -> Iterator[Finding]:
    """What MLX computes on."""
    import mlx.core as mx

    from gptoss_mlx.kernels import choice

    on_cpu = mx.default_device() == mx.Device(mx.cpu)
    name = choice.device() or ("CPU" if on_cpu else "GPU")
    if sys.platform == "darwin" and on_cpu:
        text = f"{name}: MLX sees no Metal GPU; in a virtual machine there is none"
        yield Finding("device", text, "problem")
    else:
        yield Finding("device", name)


def check_kernels(on_kernel: Progress) -> Iterator[Finding]:
    """Every Metal kernel against MLX's own operations; what is found is kept for later runs."""
    from gptoss_mlx.kernels import check, choice

    setting, here = choice.setting(), choice.device()  # the setting first: it may be wrong
    if here is None:
        yield _kernels_unused()
        return
    try:
        trials = check.try_all(here, on_kernel=lambda name: on_kernel(f"Trying {name}"))
    finally:
        on_kernel(None)
    text, is_well = _summary(trials)
    if setting != "auto":
        text += f"; {choice.VARIABLE}={os.environ[choice.VARIABLE]} overrides this"
    yield Finding("kernels", text, "ok" if is_well else "problem", tuple(trials))


def _kernels_unused() -> Finding:
    from gptoss_mlx.kernels import choice

    text = "not used: they need Metal, and MLX has no Metal GPU here"
    if choice.is_forced():
        return Finding("kernels", f"{text}; unset {choice.VARIABLE}", "problem")
    return Finding("kernels", text)


def _summary(trials: list[Trial]) -> tuple[str, bool]:
    bad = [trial.kernel for trial in trials if trial.problem]
    on = sum(trial.why_off is None for trial in trials)
    text = f"{on} of {len(trials)} on"
    if not bad:
        return text, True
    return f"{text}; broken: {', '.join(bad)} (MLX's own serve instead; please report it)", False
