"""What a model's name stands for: `demo`, an installed model, or a folder with a checkpoint.

The demo is unpacked and converted, once, into the cache folder, by the same code that converts the
real models. It does not know the Hub.
"""

from __future__ import annotations

import hashlib
import importlib.resources
import logging
import shutil
import tempfile
import time
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import mlx.core as mx

from gptoss_mlx import demo, library
from gptoss_mlx.ceiling import device_ceiling, set_limits
from gptoss_mlx.config import ModelConfig, read_config_file
from gptoss_mlx.convert import convert
from gptoss_mlx.convert.reader import find_files, read_header
from gptoss_mlx.errors import CheckpointError, DiskError, UsageError
from gptoss_mlx.kernels import check
from gptoss_mlx.memory import Plan, Use, make_plan, tensor_sizes
from gptoss_mlx.model import Model, load_model
from gptoss_mlx.vocabulary import cache_folder
from gptoss_mlx.weights import read_checkpoint

__all__ = ["load", "plan_for", "resolve"]

_log = logging.getLogger(__name__)


def load(name: str | Path, *, dtype: mx.Dtype | None = None, use: Use | None = None) -> Model:
    """Load a model into memory, if it fits.

    The first time on a Mac, its kernels are tried there before.

    Args:
        name: `demo`; 20b, 120b or the name of an installed model; or the folder of an MLX
            checkpoint: a conversion by `gptoss-mlx convert` or a ready-made one such as
            mlx-community's.
        dtype: of the activations; by default bfloat16 on a GPU and float32 on the CPU.
        use: what memory is planned for; by default one sequence of as many tokens as fit. Its
            context is not enforced here: `plan_for` tells which one fits.

    Raises:
        CheckpointError: the folder holds no usable checkpoint.
        MemoryPlanError: there is not enough memory for any context worth having.
        UsageError: the folder holds a checkpoint that must be converted first,
            GPTOSS_MLX_KERNELS names a kernel that does not exist, or GPTOSS_MLX_MEMORY is no size.
    """
    folder = resolve(name)
    plan = plan_for(folder, dtype=dtype, use=use)
    plan.check()
    if plan.verdict != "fits":
        _log.warning("%s", plan.summary)
    set_limits(plan.ceiling)
    check.ensure()
    model = load_model(folder, dtype, embedding_on_disk=plan.embedding == "disk")
    check.confirm(lambda: _first_steps(model))
    return model


def plan_for(name: str | Path, *, dtype: mx.Dtype | None = None, use: Use | None = None) -> Plan:
    """What a model would take of this machine's memory; nothing is loaded.

    Raises:
        CheckpointError, UsageError: as `load`.
    """
    config, places = read_checkpoint(resolve(name))
    on_gpu = mx.default_device() != mx.Device(mx.cpu)
    itemsize = (dtype or (mx.bfloat16 if on_gpu else mx.float32)).size
    sizes = tensor_sizes({name: at.spec for name, (_, at) in places.items()}, itemsize)
    return make_plan(config, sizes, device_ceiling(), replace(use or Use(), on_gpu=on_gpu))


def _first_steps(model: Model) -> mx.array:
    """The logits after a few tokens at once and one more: what a conversation begins with."""
    cache = model.new_cache()
    model.hidden_states(mx.zeros((1, 5), mx.int32), cache)
    return model.logits(model.hidden_states(mx.zeros((1, 1), mx.int32), cache))


def resolve(name: str | Path) -> Path:
    """The folder of a model; makes the demo's if it is not there yet.

    Raises:
        UsageError: an empty name, which would mean the current folder; or a model that is not
            installed.
    """
    if name == "":
        raise UsageError("the model's name is empty: pass the folder of a checkpoint, or demo")
    return demo_folder() if name == "demo" else library.locate(name)


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
