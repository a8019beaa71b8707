"""From a model's name to a model that can be used: found, downloaded, and if asked converted.

What is wrong is found out before a byte is fetched: a name that does not exist, memory or disks
that are too small. Whatever interrupts it, the same order goes on where it stopped. It does not
know how any of it is shown.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from gptoss_mlx import library
from gptoss_mlx.config import ModelConfig
from gptoss_mlx.convert import Dense, convert
from gptoss_mlx.convert.conversion import target_tensors
from gptoss_mlx.convert.names import source_tensors
from gptoss_mlx.convert.published import GPT_OSS_20B, GPT_OSS_120B
from gptoss_mlx.convert.reader import find_files
from gptoss_mlx.errors import MemoryPlanError, UsageError
from gptoss_mlx.fit import check_conversion, check_weights
from gptoss_mlx.hub import (
    Hub,
    Manifest,
    Need,
    Source,
    Watcher,
    check_space,
    download,
    missing_bytes,
    place_of,
    read_manifest,
)

__all__ = ["Observer", "Order", "Outcome", "install", "repository"]

_PUBLISHED = (GPT_OSS_20B, GPT_OSS_120B)
_SHORT_NAMES = ("20b", "120b")
_HEADER_BYTES = 10_000_000  # of all files with tensors together, and more
_SMALL_FILES_BYTES = 40_000_000  # what a conversion writes beside tensors


class Observer(Watcher, Protocol):
    """Is told how an installation goes on."""

    def planned(self, manifest: Manifest, missing: int) -> None:
        """What is going to be downloaded, and how many bytes of it are still to come."""

    def converting(self, done: int, total: int) -> None:
        """So many bytes of the original were converted."""


@dataclass(frozen=True)
class Order:
    """What is to be installed.

    model: 20b, 120b or a repository. source: which of its files; by default OpenAI's own. folder:
    where to, instead of the shared cache. converts: go on to convert them to `dense`, and remove
    what was downloaded for that unless `keeps_original`. elsewhere: also what this machine could
    not load.
    """

    model: str
    revision: str = "main"
    source: Source | None = None
    folder: Path | None = None
    converts: bool = False
    dense: Dense = "q8"
    keeps_original: bool = False
    elsewhere: bool = False


@dataclass(frozen=True)
class Outcome:
    """What there is now.

    model: its name if it is installed; what was only downloaded, to be converted, need not be.
    folder: the checkpoint. converted: it was, and of the original `removed` is what it says.
    was_there: nothing was left to do.
    """

    model: str | None
    folder: Path
    is_ready: bool
    converted: bool = False
    removed: bool = False
    was_there: bool = False


def install(order: Order, on: Observer, hub: Hub | None = None) -> Outcome:
    """Do what is ordered, or what is left of it.

    Raises:
        UsageError: the order makes no sense.
        HubError: the files cannot be had.
        DiskError: they would not fit on the disk, or cannot be written.
        MemoryPlanError: it would not fit into this machine's memory.
        CheckpointError: the files are not what can be converted.
    """
    hub = hub or Hub()
    repo, source = repository(order.model, order.source, order.dense)
    stem = _stem(repo, order.revision)
    converted = f"{stem}-{order.dense}"
    if order.converts and (there := library.find(converted)):
        return Outcome(converted, there, is_ready=True, was_there=True)
    manifest = read_manifest(hub, repo, order.revision, source)
    name = stem if manifest.source == "mlx" else f"{stem}-{manifest.source}"
    missing = _check(hub, manifest, order)
    on.planned(manifest, missing)
    if missing:  # from now on it is listed, and can be removed
        library.link(name, place_of(hub, manifest, order.folder))
    folder = download(hub, manifest, on, order.folder)
    find_files(folder)  # a cache may hold a part of the shards, and nobody be there to be asked
    if library.is_ready(folder):
        library.link(name, folder)
        return Outcome(name, folder, is_ready=True)
    is_listed = library.find(name) is not None
    if not order.converts:
        return Outcome(name if is_listed else None, folder, is_ready=False)
    target = library.folder_of(converted)
    convert(folder, target, dense=order.dense, on_progress=on.converting)
    # what was in the cache before this or an earlier order is others', too
    removed = is_listed and not order.keeps_original and order.folder is None
    if removed:
        library.remove(library.get(name))
    return Outcome(converted, target, is_ready=True, converted=True, removed=removed)


def repository(model: str, source: Source | None, dense: Dense) -> tuple[str, Source | None]:
    """The repository that a name stands for, and which of its files.

    Raises:
        UsageError: the name stands for none.
    """
    if model not in _SHORT_NAMES:
        if model.count("/") != 1:
            raise UsageError(
                f"{model!r} cannot be downloaded: name 20b, 120b, or a repository such as "
                "mlx-community/gpt-oss-20b-MXFP4-Q8"
            )
        return model, source
    if source != "mlx":
        return f"openai/gpt-oss-{model}", source or "original"
    if dense == "bf16":
        raise UsageError("--source mlx is there for --dense q8 and q4: convert for bf16")
    return f"mlx-community/gpt-oss-{model}-MXFP4-{dense.upper()}", source


def _stem(repo: str, revision: str) -> str:
    """What a model is called, without what is made of it."""
    suffix = "" if revision == "main" else "-" + re.sub(r"[^A-Za-z0-9._]+", "-", revision)
    return library.stem_of(repo) + suffix


def _check(hub: Hub, manifest: Manifest, order: Order) -> int:
    """See to it that memory and disks suffice; returns the bytes that are still to come."""
    if not order.elsewhere:
        _check_memory(manifest, order)
    converts = order.converts and manifest.source != "mlx"
    missing = missing_bytes(hub, manifest, order.folder)
    check_space(_needs(hub, manifest, order, missing, converts=converts))
    return missing


def _check_memory(manifest: Manifest, order: Order) -> None:
    """Spare people a download that could not be loaded here, whatever is made of it."""
    try:
        if manifest.source == "mlx":
            check_weights(manifest.weights_bytes)
        elif config := _published(manifest):
            check_conversion(config, order.dense if order.converts else "q4")
    except MemoryPlanError as error:
        raise MemoryPlanError(f"{error}; for another machine, pass --elsewhere") from None


def _needs(
    hub: Hub, manifest: Manifest, order: Order, missing: int, *, converts: bool
) -> Iterator[Need]:
    yield Need("the download", order.folder or hub.cache, missing)
    if converts:
        nbytes = _converted_bytes(manifest, order.dense)
        yield Need("the conversion", library.models_folder(), nbytes)


def _published(manifest: Manifest) -> ModelConfig | None:
    """The config of a published model, recognised by its size."""
    for config in _PUBLISHED:
        tensors = source_tensors(config, "openai").values()
        headers = manifest.weights_bytes - sum(tensor.spec.nbytes for tensor in tensors)
        if 0 <= headers < _HEADER_BYTES:
            return config
    return None


def _converted_bytes(manifest: Manifest, dense: Dense) -> int:
    """What the conversion writes; never much more than what it reads."""
    config = _published(manifest)
    if config is None:
        return manifest.weights_bytes + _SMALL_FILES_BYTES
    targets = target_tensors(source_tensors(config, "openai"), dense).values()
    return sum(spec.nbytes for spec in targets) + _SMALL_FILES_BYTES
