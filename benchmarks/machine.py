"""What the scripts share: machine and versions, peak memory, tables. It measures nothing itself."""

from __future__ import annotations

import os
import platform
import resource
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

__all__ = ["describe", "gigabytes", "peak_rss", "print_table"]

_PACKAGES = ("gptoss-mlx", "mlx", "numpy", "safetensors")


def describe() -> str:
    """One line: processor, cores, memory, system, versions of the packages that matter."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    versions = ", ".join(f"{name} {version(name)}" for name in _PACKAGES)
    return (
        f"{_processor()}, {os.cpu_count()} cores, {memory / 2**30:.0f} GiB, "
        f"{platform.system()} {platform.release()}, Python {platform.python_version()}, {versions}"
    )


def peak_rss(usage: resource.struct_rusage) -> int:
    """Largest resident memory in bytes; the system counts in KiB, on a Mac in bytes."""
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def gigabytes(nbytes: float) -> str:
    """Bytes as GiB, for a table."""
    return f"{nbytes / 2**30:.2f} GiB"


def print_table(rows: Sequence[Sequence[str]]) -> None:
    """Rows of text in columns as wide as they need to be."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)))


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
