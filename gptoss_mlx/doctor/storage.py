"""Disks, the models that are installed, and the vocabulary."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from gptoss_mlx.doctor.finding import Finding
from gptoss_mlx.errors import CheckpointError, DiskError, GptOssError
from gptoss_mlx.paths import nearest

if TYPE_CHECKING:
    from gptoss_mlx.doctor.machine import Progress
    from gptoss_mlx.library import Installed

__all__ = ["check_disks", "check_models", "check_vocabulary"]

_FULL = 1_000_000_000  # with less, conversations, records of kernels and prompt caches soon fail


def check_disks() -> Iterator[Finding]:
    """The places that are written to: whether they can be, and how much room there is."""
    from gptoss_mlx.hub import Hub
    from gptoss_mlx.paths import data_folder
    from gptoss_mlx.vocabulary import cache_folder

    yield from _disk("data", data_folder())
    yield from _disk("downloads", Hub().cache)
    yield from _disk("cache", cache_folder())


def _disk(name: str, folder: Path) -> Iterator[Finding]:
    place = nearest(folder)
    free = shutil.disk_usage(place).free
    text = f"{folder}: {free / 1e9:.1f} GB free"
    if not os.access(place, os.W_OK):
        yield Finding(name, f"{text}; {place} cannot be written: change its owner", "problem")
    elif free < _FULL:
        yield Finding(name, f"{text}, the disk is full: make room", "problem")
    else:
        yield Finding(name, text)


def check_models(*, deep: bool, on_progress: Progress) -> Iterator[Finding]:
    """Each installed model: whether its files are whole, and whether it fits into memory.

    Args:
        deep: read them all again, and compare their hashes.
        on_progress: is told which model is being read.
    """
    from gptoss_mlx import library

    models = library.installed()
    if not models:
        yield _nothing_installed()
    for model in models:
        on_progress(f"Reading {model.name}" if deep else None)
        try:
            yield _model(model, on_progress if deep else None)
        finally:
            on_progress(None)


def _nothing_installed() -> Finding:
    """Whether there is room for what would be."""
    from gptoss_mlx.fit import recommend
    from gptoss_mlx.installation import check_room

    best = recommend()
    if best.model is None:
        return Finding("models", "none is installed")
    try:
        check_room(best.download_bytes, best.disk_bytes)
    except DiskError as error:
        return Finding("models", f"none is installed, and the {best.model} has {error}", "warning")
    return Finding("models", f"none is installed: gptoss-mlx download {best.model} --convert")


def _model(model: Installed, on_progress: Progress | None) -> Finding:
    """Whether it is well; with somebody to tell how far, every byte of it."""
    from gptoss_mlx.library import problem_of

    name, nbytes = f"model {model.name}", f"{model.nbytes / 1e9:.1f} GB"
    problem = problem_of(model)
    if problem and _was_interrupted(model):
        text = f"not complete, {nbytes}: the same command goes on; gptoss-mlx rm {model.name}"
        return Finding(name, f"{text} removes it", "warning")
    if problem:
        return Finding(name, f"{problem} (gptoss-mlx rm {model.name} removes it)", "problem")
    if not model.is_ready:
        return Finding(name, f"{model.variant}, {nbytes}, to be converted: {_to_convert(model)}")
    try:
        _check_complete(model)
        shallow = "complete (--deep reads it all)"
        checked = _compare_hashes(model, on_progress) if on_progress else shallow
        note = _memory_note(model)
    except GptOssError as error:
        remedy = "" if "gptoss-mlx rm" in str(error) else f"; first gptoss-mlx rm {model.name}"
        return Finding(name, f"{error}{remedy}", "problem")
    return Finding(name, f"{model.variant}, {nbytes}, {checked}{note}", "warning" if note else "ok")


def _was_interrupted(model: Installed) -> bool:
    """Whether it is on its way here: a download, or what a conversion was writing."""
    is_download = model.folder.is_symlink() and model.place.exists()
    return not model.is_ready and (is_download or model.folder.name != model.name)


def _to_convert(model: Installed) -> str:
    """The command that goes on with a download."""
    if model.name == f"gpt-oss-{model.size}-original":
        return f"gptoss-mlx download {model.size} --convert"
    return f"{shlex.join(['gptoss-mlx', 'convert', str(model.folder)])} NEW_FOLDER"


def _check_complete(model: Installed) -> None:
    """Whether the files hold the tensors that the config promises: from headers alone."""
    from gptoss_mlx.convert.names import source_tensors
    from gptoss_mlx.weights import read_checkpoint

    config, places = read_checkpoint(model.folder)
    promised = source_tensors(config, "openai").values()
    missing = sorted({part.name for tensor in promised for part in tensor.parts} - places.keys())
    if missing:
        raise CheckpointError(
            f"{model.folder}: tensor {missing[0]} is missing; gptoss-mlx rm {model.name}, and "
            "install it again"
        )


def _memory_note(model: Installed) -> str:
    """What keeps it from being loaded here with the settings that need least; empty if nothing."""
    from gptoss_mlx.memory import Use
    from gptoss_mlx.models import plan_for

    plan = plan_for(model.folder, use=Use(embedding="disk", kv_bits=8))
    return f"; {plan.summary}" if plan.verdict == "refused" else ""


def _compare_hashes(model: Installed, on_progress: Progress) -> str:
    from gptoss_mlx.convert.hashes import check_hashes, has_hashes

    if has_hashes(model.place):

        def tell(done: int, total: int) -> None:
            on_progress(f"Reading {model.name}: {done * 100 // total}%")

        check_hashes(model.place, tell)
        return "all bytes as they were written"
    return _compare_with_hub(model)


def _compare_with_hub(model: Installed) -> str:
    """Files in the shared cache are called by their hashes."""
    from gptoss_mlx.hub import is_right
    from gptoss_mlx.hub.cache import cached_file, holder, walk

    snapshot = holder(model.place)
    if snapshot is None:
        return "its hashes are not known here"
    for path in walk(model.place):
        if not is_right(path, cached_file(snapshot, path)):
            raise CheckpointError(
                f"{path} is damaged: gptoss-mlx rm {model.name}, and download it again"
            )
    return "all bytes as the Hub has them"


def check_vocabulary() -> Iterator[Finding]:
    """Whether text can be cut into tokens without the network."""
    from gptoss_mlx.vocabulary import read_vocabulary

    read_vocabulary()
    yield Finding("vocabulary", "o200k, whole; no network is needed for it")
