"""All files of a manifest: into the shared cache of Hugging Face, or a folder of the user's.

It does not know how a file is fetched, nor what the files are for.
"""

from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import hf_hub_url, try_to_load_from_cache

from gptoss_mlx.errors import DiskError
from gptoss_mlx.hub.cache import PARTIAL, find_snapshot, repo_folder, snapshot_folder
from gptoss_mlx.hub.client import REFUSALS, Hub, refusal
from gptoss_mlx.hub.manifest import Manifest, RemoteFile
from gptoss_mlx.hub.transfer import Watcher, fetch, is_right
from gptoss_mlx.paths import nearest

__all__ = ["Need", "check_space", "download", "missing_bytes", "place_of"]


@dataclass(frozen=True)
class Need:
    """Bytes that something will take on the disk that a path is, or will be, on."""

    what: str
    path: Path
    nbytes: int


def place_of(hub: Hub, manifest: Manifest, folder: Path | None) -> Path:
    """Where the checkpoint will lie."""
    base = folder or snapshot_folder(hub.cache, manifest.repo, manifest.commit)
    return base / manifest.subfolder


def missing_bytes(hub: Hub, manifest: Manifest, folder: Path | None = None) -> int:
    """How much of it is still to come."""
    return sum(_missing(*_paths(hub, manifest, file, folder), file) for file in manifest.files)


def check_space(needs: Iterable[Need]) -> None:
    """See to it that the disks have room for all of it.

    Raises:
        DiskError: one has not.
    """
    by_disk: defaultdict[int, list[Need]] = defaultdict(list)
    for need in needs:
        by_disk[nearest(need.path).stat().st_dev].append(need)
    for on_one in by_disk.values():
        total = sum(need.nbytes for need in on_one)
        place = nearest(on_one[0].path)
        free = shutil.disk_usage(place).free
        if total > free:
            parts = ", ".join(f"{_gb(need.nbytes)} for {need.what}" for need in on_one)
            raise DiskError(
                f"not enough disk space at {place}: {parts}, and {_gb(free)} free: make room, "
                "or choose another disk (--dir, HF_HOME, GPTOSS_MLX_DATA)"
            )


def download(hub: Hub, manifest: Manifest, on: Watcher, folder: Path | None = None) -> Path:
    """Bring all files here that are not yet, and check them all; returns the checkpoint's folder.

    Args:
        hub: where from.
        manifest: what.
        on: is told.
        folder: where to; by default the shared cache. In a folder the files lie as in the
            repository, and those that the cache has are copied.

    Raises:
        HubError: what cannot be had.
        DiskError: a file cannot be written, or there is another one in the user's folder.
    """
    try:
        for file in manifest.files:
            _bring(hub, manifest, file, on, folder)
            on.finished(file)
        known = find_snapshot(hub.cache, manifest.repo, manifest.revision)
        if folder is None and (known is None or known.name != manifest.commit):
            _link(hub, manifest, manifest.files[0].name, manifest.revision)
    except REFUSALS as error:
        raise refusal(error, hub, manifest.repo, manifest.revision) from error
    except OSError as error:
        raise DiskError(f"{error.filename or hub.cache}: {error.strerror or error}") from error
    return place_of(hub, manifest, folder)


def _bring(
    hub: Hub, manifest: Manifest, file: RemoteFile, on: Watcher, folder: Path | None
) -> None:
    target, partial = _paths(hub, manifest, file, folder)
    if target.is_file() and not is_right(target, file, on):
        if folder is not None:
            raise DiskError(
                f"{target} is there already, and is not what {manifest.repo} has: move it away, "
                "or choose another --dir"
            )
        on.note(f"{file.name} is damaged on this disk. Fetching it anew.")
        target.unlink()
    if not target.is_file():
        if folder is not None:
            _copy_from_cache(hub, manifest, file, partial)
        url = hf_hub_url(manifest.repo, file.name, revision=manifest.commit, endpoint=hub.endpoint)
        fetch(hub, url, file, target, partial, on)
    if folder is None:
        _link(hub, manifest, file.name, manifest.commit)


def _link(hub: Hub, manifest: Manifest, name: str, revision: str) -> None:
    """Have huggingface-hub give a blob its name in the snapshot, and remember the revision."""
    hub.api.hf_hub_download(manifest.repo, name, revision=revision, cache_dir=hub.cache)


def _copy_from_cache(hub: Hub, manifest: Manifest, file: RemoteFile, partial: Path) -> None:
    """Begin with what the cache has; it is checked like what comes from the network."""
    cached = try_to_load_from_cache(manifest.repo, file.name, hub.cache, manifest.commit)
    if isinstance(cached, str):
        partial.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(cached, partial)


def _paths(
    hub: Hub, manifest: Manifest, file: RemoteFile, folder: Path | None
) -> tuple[Path, Path]:
    """(where the file will be, where it is on its way there)."""
    if folder is not None:
        target = folder / file.name
    elif file.etag is None:
        target = snapshot_folder(hub.cache, manifest.repo, manifest.commit) / file.name
    else:
        target = repo_folder(hub.cache, manifest.repo) / "blobs" / file.etag
    return target, target.with_name(target.name + PARTIAL)


def _missing(target: Path, partial: Path, file: RemoteFile) -> int:
    if target.is_file():
        return 0 if target.stat().st_size == file.size else file.size
    return file.size - (min(partial.stat().st_size, file.size) if partial.is_file() else 0)


def _gb(nbytes: int) -> str:
    return f"{nbytes / 1e9:.1f} GB"
