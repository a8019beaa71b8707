"""Paths as users write them."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["expand"]


def expand(name: str | Path) -> Path:
    """The path with its `~`; that of a user who is not there stays, as in a shell."""
    return Path(os.path.expanduser(name))  # noqa: PTH111 (the other one raises)
