"""What a model's name stands for: `demo`, or a folder with a converted checkpoint.

The demo is unpacked and converted, once, into the cache folder, by the same code that converts the
real models. It does not know the Hub.
"""

from __future__ import annotations

import hashlib
import importlib.resources
import shutil
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import mlx.core as mx

from gptoss_mlx import demo
from gptoss_mlx.config import ModelConfig, read_config_file
from gptoss_mlx.convert import convert
from gptoss_mlx.convert.reader import find_files, read_header
from gptoss_mlx.errors import CheckpointError, DiskError, UsageError
from gptoss_mlx.kernels import check
from gptoss_mlx.model import Model, load_model
from gptoss_mlx.vocabulary import cache_folder

__all__ = ["load", "resolve"]


def load(name: str | Path, *, dtype: mx.Dtype | None = None) -> Model:
    """Load a model into memory. The first time on a Mac, its kernels are tried there before.

    Args:
        name: `demo`, or the folder of an MLX checkpoint: a conversion by `gptoss-mlx convert` or a
            ready-made one such as mlx-community's.
        dtype: of the activations; by default bfloat16 on a GPU and float32 on the CPU.

    Raises:
        CheckpointError: the folder holds no usable checkpoint.
        UsageError: the folder holds a checkpoint that must be converted first, or
            GPTOSS_MLX_KERNELS names a kernel that does not exist.
    """
    folder = resolve(name)
    if (folder / "config.json").is_file():  # else there is nothing to try them for
        check.ensure()
    model = load_model(folder, dtype)
    check.confirm(lambda: _first_steps(model))
    return model


def _first_steps(model: Model) -> mx.array:
    """The logits after a few tokens at once and one more: what a conversation begins with."""
    cache = model.new_cache()
    model.hidden_states(mx.zeros((1, 5), mx.int32), cache)
    return model.logits(model.hidden_states(mx.zeros((1, 1), mx.int32), cache))


def resolve(name: str | Path) -> Path:
    """The folder of a model; makes the demo's if it is not there yet.

    Raises:
        UsageError: an empty name, which would mean the current folder.
    """
    if name == "":
        raise UsageError("the model's name is empty: pass the folder of a checkpoint, or demo")
    return demo_folder() if name == "demo" else Path(name).expanduser()


def demo_folder() -> Path:
    """The converted demo in the cache folder; made anew if it is missing or damaged.

    Raises:
        DiskError: there is no space for it.
    """
    cache = cache_folder()
    folder = cache / f"demo-{_demo_fingerprint()}"
    if _is_intact(folder):
        return folder
    _remove_older_than_a_day(cache)
    shutil.rmtree(folder, ignore_errors=True)
    making = Path(tempfile.mkdtemp(prefix="demo-", dir=cache))
    try:
        convert(demo.unpack(making / "original"), making / "mlx")
        (making / "mlx").rename(folder)
    except OSError as error:
        if not _is_intact(folder):  # else another process has just made the same
            raise DiskError(f"no room for the demo in {cache}: {error.strerror}") from error
    finally:
        shutil.rmtree(making, ignore_errors=True)
    return folder


def _is_intact(folder: Path) -> bool:
    """Whether the files are there and as long as their headers say."""
    try:
        ModelConfig.from_dict(read_config_file(folder / "config.json"), allow_unknown=True)
        return all(read_header(path) for path in find_files(folder))
    except CheckpointError:
        return False


def _remove_older_than_a_day(cache: Path) -> None:
    """Clear away demos of other versions, and what killed runs left."""
    for path in cache.glob("demo-*"):
        if time.time() - path.stat().st_mtime > 24 * 3600:
            shutil.rmtree(path, ignore_errors=True)


def _demo_fingerprint() -> str:
    """Changes whenever the demo or the program that converts it does."""
    folder = importlib.resources.files(demo)
    digest = hashlib.sha256(version("gptoss-mlx").encode())
    for name in (demo.CONFIG, demo.PACKED):
        digest.update((folder / name).read_bytes())
    return digest.hexdigest()[:12]
