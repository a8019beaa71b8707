"""What a model's name stands for: `demo`, or a folder with a converted checkpoint.

The demo is unpacked and converted, once, into the cache folder, by the same code that converts the
real models. It does not know the Hub.
"""

from __future__ import annotations

import hashlib
import importlib.resources
import shutil
import tempfile
from importlib.metadata import version
from pathlib import Path

import mlx.core as mx

from gptoss_mlx import demo
from gptoss_mlx.convert import convert
from gptoss_mlx.model import Model, load_model
from gptoss_mlx.vocabulary import cache_folder

__all__ = ["load", "resolve"]


def load(name: str | Path, *, dtype: mx.Dtype | None = None) -> Model:
    """Load a model into memory.

    Args:
        name: `demo`, or the folder of an MLX checkpoint: a conversion by `gptoss-mlx convert` or a
            ready-made one such as mlx-community's.
        dtype: of the activations; by default bfloat16 on a GPU and float32 on the CPU.

    Raises:
        CheckpointError: the folder holds no usable checkpoint.
        UsageError: the folder holds a checkpoint that must be converted first.
    """
    return load_model(resolve(name), dtype)


def resolve(name: str | Path) -> Path:
    """The folder of a model; makes the demo's if it is not there yet."""
    return demo_folder() if name == "demo" else Path(name).expanduser()


def demo_folder() -> Path:
    """The converted demo, in the cache folder; a temporary one where that cannot be written."""
    folder = cache_folder() / f"demo-{_demo_fingerprint()}"
    if folder.is_dir():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        parent = Path(tempfile.mkdtemp(prefix="demo-", dir=folder.parent))
    except OSError:  # a read-only home is no reason to stop
        parent = Path(tempfile.mkdtemp(prefix="gptoss-mlx-"))
        folder = parent / "demo"
    try:
        convert(demo.unpack(parent / "original"), parent / "mlx")
        (parent / "mlx").rename(folder)
    except OSError:
        if not folder.is_dir():  # else another process has just made the same
            raise
    finally:
        shutil.rmtree(
            parent if parent != folder.parent else parent / "original", ignore_errors=True
        )
    return folder


def _demo_fingerprint() -> str:
    """Changes whenever the demo or the program that converts it does."""
    folder = importlib.resources.files(demo)
    digest = hashlib.sha256(version("gptoss-mlx").encode())
    for name in (demo.CONFIG, demo.PACKED):
        digest.update((folder / name).read_bytes())
    return digest.hexdigest()[:12]
