"""Where something was measured: machine and versions, as one would tell them in an issue.

It knows no benchmark.
"""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

import mlx.core as mx

__all__ = ["System", "describe", "this_system"]

_PACKAGES = ("gptoss-mlx", "mlx", "mlx-lm")


@dataclass(frozen=True)
class System:
    """A machine. chip: that MLX runs on. memory: bytes. versions: by package."""

    chip: str
    on_gpu: bool
    cores: int
    memory: int
    system: str
    python: str
    versions: dict[str, str]

    @property
    def lines(self) -> tuple[str, str]:
        """Machine and system; packages."""
        gibibytes = f"{self.memory / 2**30:.0f} GiB"
        device = f"MLX on the {'GPU' if self.on_gpu else 'CPU'}"
        machine = (self.chip, device, f"{self.cores} CPU cores", gibibytes, self.system)
        versions = [f"{name} {number}" for name, number in self.versions.items()]
        return ", ".join(machine), ", ".join([f"Python {self.python}", *versions])


def this_system() -> System:
    """Where this runs."""
    return System(
        str(mx.device_info().get("device_name", platform.machine())),
        mx.default_device() != mx.Device(mx.cpu),
        os.cpu_count() or 1,
        os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        _system(),
        platform.python_version(),
        {name: _version(name) for name in _PACKAGES},
    )


def describe() -> str:
    """This machine in one line."""
    return ", ".join(this_system().lines)


def _system() -> str:
    if release := platform.mac_ver()[0]:
        return f"macOS {release}"
    return f"{platform.system()} {platform.release()}"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
