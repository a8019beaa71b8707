"""What the scripts share: machine and versions, peak memory, tables. It measures nothing itself."""

from __future__ import annotations

import resource
import sys
from collections.abc import Sequence

from gptoss_mlx.bench.machine import describe

__all__ = ["describe", "gigabytes", "peak_rss", "print_table"]


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
