"""From a model's name to a model that can be used: found, downloaded, and if asked converted.

What is wrong is found out before a byte is fetched: a name that does not exist, memory or disks
that are too small. Whatever interrupts it, the same order goes on where it stopped. It does not
know how any of it is shown.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from gptoss_mlx import library
from gptoss_mlx.config import ModelConfig, read_config_file
from gptoss_mlx.convert import Dense, convert
from gptoss_mlx.convert.conversion import target_tensors
from gptoss_mlx.convert.names import source_tensors
from gptoss_mlx.convert.published import GPT_OSS_20B, GPT_OSS_120B
from gptoss_mlx.convert.reader import find_files
from gptoss_mlx.errors import CheckpointError, DiskError, HubError, MemoryPlanError, UsageError
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

__all__ = ["Observer", "Order", "Outcome", "check_room", "install", "repository"]

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
    with library.only_one(stem):
        return _Installation(order, on, hub, repo, source, stem).run()


@dataclass(frozen=True)
class _Installation:
    """An order that is carried out, and by which names its parts go."""

    order: Order
    on: Observer
    hub: Hub
    repo: str
    source: Source | None
    stem: str

    @property
    def converted(self) -> str:
        return f"{self.stem}-{self.order.dense}"

    def run(self) -> Outcome:
        if self.order.converts and (there := library.find(self.converted)):
            problem = library.problem_of(library.get(self.converted))
            if problem is None:
                return Outcome(self.converted, there, is_ready=True, was_there=True)
            self.on.note(f"{self.converted} is damaged ({problem}): installing it anew.")
        manifest = read_manifest(self.hub, self.repo, self.order.revision, self.source)
        name = self.stem if manifest.source == "mlx" else f"{self.stem}-{manifest.source}"
        folder = self._bring(manifest, name)
        if library.is_ready(folder):
            library.link(name, folder)
            return Outcome(name, folder, is_ready=True)
        is_listed = _leads_to(name, folder)
        if not self.order.converts:
            return Outcome(name if is_listed else None, folder, is_ready=False)
        target = self._convert(folder)
        # what was in the cache before this or an earlier order is others', too
        may_go = is_listed and self.order.folder is None and not self.order.keeps_original
        removed = may_go and self._remove(name)
        return Outcome(self.converted, target, is_ready=True, converted=True, removed=removed)

    def _bring(self, manifest: Manifest, name: str) -> Path:
        """Download it, and from the beginning have it listed, so that it can be removed."""
        place = place_of(self.hub, manifest, self.order.folder)
        missing = _check(self.hub, manifest, self.order)
        # of an original in a folder of the user's, a second one need not have a name
        needs_name = self.order.folder is None or manifest.source == "mlx"
        if needs_name:
            library.check_link(name, place)
        self.on.planned(manifest, missing)
        self._check_config(manifest)
        is_named = missing > 0 and (needs_name or library.find(name) is None)
        old = library.check_link(name, place) if is_named else None
        if is_named and old is None:
            library.link(name, place)
        download(self.hub, manifest, self.on, self.order.folder)
        find_files(place)  # a cache may hold a part of the shards, and nobody be there to be asked
        if old is not None and old != place:
            library.link(name, place)
            library.remove_unnamed(old)  # the commit before
        return place

    def _check_config(self, manifest: Manifest) -> None:
        """Before the weights are fetched: whether it is a gpt-oss, and what was asked for."""
        first = replace(manifest, files=(manifest.config,))
        folder = download(self.hub, first, self.on, self.order.folder)
        try:
            ModelConfig.from_dict(read_config_file(folder / "config.json"), allow_unknown=True)
        except CheckpointError as error:
            raise HubError(f"{self.repo} holds no gpt-oss model: {error}") from error
        if manifest.source == "mlx" and not library.is_ready(folder):
            raise HubError(
                f"{self.repo} holds no MLX conversion: leave --source out, or name a repository "
                "such as mlx-community/gpt-oss-20b-MXFP4-Q8"
            )

    def _convert(self, folder: Path) -> Path:
        target = library.folder_of(self.converted)
        if target.exists():
            library.remove(library.get(self.converted))  # it is damaged
        convert(folder, target, dense=self.order.dense, on_progress=self.on.converting)
        return target

    def _remove(self, name: str) -> bool:
        """Remove the original; returns whether it is gone: the conversion is there all the same."""
        try:
            return library.remove(library.get(name))
        except DiskError as error:
            self.on.note(f"The original stays: {error}")
            return False


def _leads_to(name: str, folder: Path) -> bool:
    entry = library.find(name)
    return entry is not None and entry.is_symlink() and entry.readlink() == folder.absolute()


def repository(model: str, source: Source | None, dense: Dense) -> tuple[str, Source | None]:
    """The repository that a name stands for, and which of its files.

    Raises:
        UsageError: the name stands for none.
    """
    model = model.removeprefix("https://huggingface.co/")
    if model.lower().removeprefix("gpt-oss-") in _SHORT_NAMES:
        model = model.lower().removeprefix("gpt-oss-")
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


def check_room(download_bytes: int, converted_bytes: int) -> None:
    """See to it that there is room for a download in the shared cache, and its conversion.

    Raises:
        DiskError: there is not.
    """
    check_space(
        [
            Need("the download", Hub().cache, download_bytes),
            Need("the conversion", library.models_folder(), converted_bytes),
        ]
    )


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
