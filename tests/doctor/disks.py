"""Disks of any size."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

__all__ = ["disk_with"]


def disk_with(free: int) -> Callable[[object], SimpleNamespace]:
    """What stands for `shutil.disk_usage`, wherever it is asked."""

    def usage(_: object) -> SimpleNamespace:
        return SimpleNamespace(free=free)

    return usage
