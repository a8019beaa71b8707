"""The models that are installed: their names, where they lie, and removing them.

`models` in the data folder holds, by name, the conversions made here, and links to checkpoints that
were downloaded into the shared cache of Hugging Face or a folder of the user's. Nothing else is
written down: what a model is, its files say. It does not know the Hub.
"""

from __future__ import annotations

import fcntl
import re
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

from gptoss_mlx.config import is_openai_config, read_config_file
from gptoss_mlx.errors import CheckpointError, DiskError, UsageError
from gptoss_mlx.paths import data_folder, expand

__all__ = [
    "SIZES",
    "Installed",
    "check_link",
    "default",
    "find",
    "folder_of",
    "get",
    "installed",
    "is_name",
    "is_ready",
    "link",
    "locate",
    "models_folder",
    "only_one",
    "problem_of",
    "remove",
    "remove_unnamed",
    "stem_of",
    "variant_of",
]

SizeName = Literal["20b", "120b", ""]
SIZES: dict[tuple[int, int], SizeName] = {(24, 32): "20b", (36, 128): "120b"}  # layers, experts
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_PLAIN_OWNERS = ("mlx-community", "openai")
_TO_CONVERT = ("original", "hf")
_REMOVED = ".gptoss-mlx-removed"
_LEFT = re.compile(rf"\.({_NAME.pattern})\.gptoss-mlx-partial")  # by a conversion that was killed


@dataclass(frozen=True)
class Installed:
    """A model by its name.

    folder: its entry among the models. size: 20b, 120b or "". variant: how its dense matrices are
    stored, or what it is converted from. is_ready: whether it can be used without converting.
    """

    name: str
    folder: Path
    size: SizeName
    variant: str
    is_ready: bool
    since: float

    @property
    def place(self) -> Path:
        """Where its files lie."""
        return self.folder.resolve()

    @property
    def nbytes(self) -> int:
        """What its files take, and what has come of those that are not whole."""
        from gptoss_mlx.hub.cache import partials

        paths = [*self.folder.glob("*"), *partials(self.place)]
        return sum(path.stat().st_size for path in paths if path.is_file())


def models_folder() -> Path:
    """Where the models have their names; it need not be there."""
    return data_folder() / "models"


def folder_of(name: str) -> Path:
    """The place of a model with this name, whether it is there or not.

    Raises:
        UsageError: this cannot be a name.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(f"{name!r} is no model's name: `gptoss-mlx models` lists those there are")
    return models_folder() / name


def stem_of(repo: str) -> str:
    """What the models of a repository are called: its own name, unless others may use that, too."""
    owner, _, name = repo.rpartition("/")
    return name if owner in _PLAIN_OWNERS else f"{owner}--{name}".lstrip("-")


def installed() -> list[Installed]:
    """All models, by name; those that are damaged or not complete as well.

    What a conversion left that was killed goes by the name that it was to have.

    Raises:
        DiskError: the folder cannot be read.
    """
    try:
        entries = sorted(models_folder().iterdir())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise DiskError(f"{models_folder()} cannot be read: {error.strerror}") from None
    models = {
        entry.name: _described(entry)
        for entry in entries
        if _NAME.fullmatch(entry.name) and (entry.is_symlink() or entry.is_dir())
    }
    for entry in entries:
        if (left := _LEFT.fullmatch(entry.name)) and left[1] not in models:
            models[left[1]] = replace(_described(entry), name=left[1], is_ready=False)
    return sorted(models.values(), key=lambda model: model.name)


def get(name: str) -> Installed:
    """The model with this name, as `find` understands it.

    Raises:
        UsageError: there is none.
    """
    folder = find(name)
    wanted = folder.name if folder else name
    model = next((model for model in installed() if model.name == wanted), None)
    if model is None:
        raise UsageError(
            f"no model {name!r} is installed: `gptoss-mlx models` lists those there are"
        )
    return model


def find(name: str) -> Path | None:
    """The folder of an installed model, if there is one.

    Args:
        name: its name; or the repository it was downloaded from, or 20b or 120b, which mean of
            several the one that was installed last.
    """
    if name in SIZES.values():
        return _folder(_latest([model for model in installed() if model.size == name]))
    stem = stem_of(name) if name.count("/") == 1 else name
    folder = models_folder() / stem
    if _NAME.fullmatch(stem) and (folder.is_dir() or folder.is_symlink()):
        return folder
    if stem == name:
        return None
    return _folder(_latest([m for m in installed() if m.name.rpartition("-")[0] == stem]))


def is_name(name: str) -> bool:
    """Whether an installed model is meant: a folder of the same name comes before it.

    But not before 20b and 120b.
    """
    return find(name) is not None and (name in SIZES.values() or not expand(name).exists())


def locate(name: str | Path) -> Path:
    """The folder of an installed model, or the one that a path leads to, whatever is there.

    Raises:
        UsageError: 20b or 120b, and none of that size is installed.
        CheckpointError: the model lies where nothing is now.
    """
    if isinstance(name, str):
        folder = find(name) if is_name(name) else None
        if folder is not None and not folder.exists():
            raise CheckpointError(
                f"{name} lies in {folder.readlink()}, which is not there: is its disk connected? "
                f"gptoss-mlx rm {name} forgets it"
            )
        if folder is not None:
            return folder
        if name in SIZES.values() and not expand(name).exists():
            raise UsageError(
                f"no {name} is installed: `gptoss-mlx download {name} --convert` installs one; "
                "the model demo works now"
            )
    return expand(name)


def default() -> Installed | None:
    """The model to take if none is named: the one that was installed last."""
    return _latest(installed())


def link(name: str, place: Path) -> None:
    """Give a checkpoint that lies elsewhere a name; it need not be complete yet.

    Raises:
        DiskError: it cannot be written.
        UsageError: something else has this name.
    """
    check_link(name, place)
    entry = folder_of(name)
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        if entry.is_symlink():
            entry.unlink()
        entry.symlink_to(place.absolute(), target_is_directory=True)
    except OSError as error:
        raise DiskError(f"{entry} cannot be written: {error.strerror}") from None


def check_link(name: str, place: Path) -> Path | None:
    """The checkpoint that a name leads to before it is given to another one; None if to nothing.

    Raises:
        UsageError: it must not be given.
    """
    entry = folder_of(name)
    if not entry.exists():
        return None
    if entry.is_symlink() and (_may_move(entry.readlink(), place) or not _serves(entry)):
        return entry.readlink()
    where = f", in {entry.resolve()}" if entry.is_symlink() else ""
    raise UsageError(f"a model {name} is there already{where}: gptoss-mlx rm {name}")


def _serves(entry: Path) -> bool:
    """Whether chat and serve could use what a name leads to."""
    return _described(entry).is_ready


def _may_move(old: Path, new: Path) -> bool:
    """Whether a name may follow: within the same repository of the cache, to another commit."""
    from gptoss_mlx.hub.cache import holder

    before, after = holder(old), holder(new)
    return old == new.absolute() or bool(before and after and before.parent == after.parent)


@contextmanager
def only_one(name: str) -> Generator[None]:
    """Keep others from installing or removing what goes by this name, until the block ends.

    Raises:
        DiskError: the folder cannot be written.
        UsageError: somebody else does that now.
    """
    lock = models_folder() / f".{name}.lock"
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        handle = lock.open("ab")
    except OSError as error:
        raise DiskError(f"{lock.parent} cannot be written: {error.strerror}") from None
    with handle:  # the system lets go of it if this process dies
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(
                f"another gptoss-mlx is installing or removing {name}: wait for it"
            ) from None
        yield


def is_ready(folder: Path) -> bool:
    """Whether a folder holds a checkpoint that needs no converting.

    Raises:
        CheckpointError: it holds none.
    """
    return variant_of(read_config_file(folder / "config.json")) not in _TO_CONVERT


def problem_of(model: Installed) -> str | None:
    """What its files' names and headers show to be wrong with a model."""
    from gptoss_mlx.convert.reader import find_files, read_header

    try:
        read_config_file(model.folder / "config.json")
        for path in find_files(model.folder):
            read_header(path)
    except CheckpointError as error:
        return str(error)
    return None


def remove(model: Installed) -> bool:
    """Remove a model with its files; returns whether they are gone.

    Those in a folder of the user's, and those that another name leads to, stay: only the name is
    forgotten.

    Raises:
        DiskError: it cannot be removed.
    """
    entry = model.folder
    try:
        if not entry.is_symlink():
            doomed = entry.with_name(f".{model.name}{_REMOVED}")
            shutil.rmtree(doomed, ignore_errors=True)  # left by one that was killed
            entry.rename(doomed)  # so that nobody takes half of it for a model
            shutil.rmtree(doomed)
            return True
        is_gone = remove_unnamed(entry.readlink(), leaving=model.name)
        entry.unlink()
    except OSError as error:
        raise DiskError(f"{error.filename or entry} cannot be removed: {error.strerror}") from None
    return is_gone


def remove_unnamed(place: Path, leaving: str = "") -> bool:
    """Remove a checkpoint from the cache if no model leads to it; returns whether it is gone.

    Args:
        place: its folder.
        leaving: the name of a model that does not count.

    Raises:
        OSError: it cannot be removed.
    """
    from gptoss_mlx.hub import cache

    links = (m.folder for m in installed() if m.folder.is_symlink() and m.name != leaving)
    named = [link.readlink() for link in links]
    if cache.holder(place) is None or place in named:
        return False
    cache.remove(place)
    return True


def _folder(model: Installed | None) -> Path | None:
    return model.folder if model else None


def _latest(models: list[Installed]) -> Installed | None:
    """The one that was installed last; one that is not whole only if there is no other."""
    ready = [model for model in models if model.is_ready]
    ready.sort(key=lambda model: model.since, reverse=True)
    whole = (model for model in ready if problem_of(model) is None)
    return next(whole, ready[0] if ready else None)


def _described(entry: Path) -> Installed:
    since = entry.lstat().st_mtime
    try:
        raw = read_config_file(entry / "config.json")
    except CheckpointError:
        return Installed(entry.name, entry, "", "incomplete", is_ready=False, since=since)
    layers = raw.get("num_hidden_layers")
    experts = raw.get("num_local_experts", raw.get("num_experts"))
    size: SizeName = SIZES.get(cast("tuple[int, int]", (layers, experts)), "")
    variant = variant_of(raw)
    return Installed(entry.name, entry, size, variant, variant not in _TO_CONVERT, since)


def variant_of(raw: dict[str, Any]) -> str:
    """q8, q4, ...: the width of lm_head; or the layout that must be converted."""
    if is_openai_config(raw):
        return "original"
    quantization: object = raw.get("quantization")
    if not isinstance(quantization, dict):
        return "hf"
    settings = cast("dict[str, Any]", quantization)
    head: Any = settings.get("lm_head", settings)
    if not isinstance(head, dict) or cast("dict[str, Any]", head).get("mode") == "mxfp4":
        return "bf16"
    return f"q{cast('dict[str, Any]', head).get('bits')}"
