"""Paths as users write them, and the folder that is ours."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["data_folder", "expand", "nearest"]


def expand(name: str | Path) -> Path:
    """The path with its `~`; that of a user who is not there stays, as in a shell."""
    return Path(os.path.expanduser(name))  # noqa: PTH111 (the other one raises)


def nearest(path: Path) -> Path:
    """The path, or the nearest folder above it that is there."""
    absolute = path.absolute()
    return next(place for place in (absolute, *absolute.parents) if place.exists())


def data_folder() -> Path:
    """Where what a user made is kept: $GPTOSS_MLX_DATA, or the platform's place for it."""
    if given := os.environ.get("GPTOSS_MLX_DATA"):
        return expand(given)
    from platformdirs import user_data_path

    return user_data_path("gptoss-mlx")
