"""The shared cache of Hugging Face: what lies where in it, and removing a checkpoint from it.

A repository's folder holds `blobs/` by etag, `snapshots/COMMIT/` with links to them by name, and
`refs/` from revisions to commits; huggingface-hub describes it in "Understand caching". It does not
know the Hub.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from huggingface_hub import constants
from huggingface_hub.file_download import repo_folder_name

from gptoss_mlx.hub.manifest import RemoteFile, Source, is_needed, is_tokenizer

__all__ = [
    "PARTIAL",
    "cached_file",
    "find_snapshot",
    "holder",
    "partials",
    "remove",
    "repo_folder",
    "snapshot_folder",
    "walk",
]

PARTIAL = ".gptoss-mlx.incomplete"  # ours; huggingface-hub gives its own other names
_HASH = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


def repo_folder(cache: Path, repo: str) -> Path:
    """Where everything of a repository is."""
    return cache / repo_folder_name(repo_id=repo, repo_type=constants.REPO_TYPE_MODEL)


def snapshot_folder(cache: Path, repo: str, commit: str) -> Path:
    """Where the files of a commit have their names."""
    return repo_folder(cache, repo) / "snapshots" / commit


def find_snapshot(cache: Path, repo: str, revision: str) -> Path | None:
    """The snapshot of a branch, tag or commit, if there is one."""
    ref = repo_folder(cache, repo) / "refs" / revision
    commit = ref.read_text().strip() if ref.is_file() else revision
    folder = snapshot_folder(cache, repo, commit)
    return folder if folder.is_dir() else None


def walk(snapshot: Path) -> Iterator[Path]:
    """The files of a snapshot; links to nowhere are none."""
    return (path for path in snapshot.rglob("*") if path.is_file())


def cached_file(snapshot: Path, path: Path) -> RemoteFile:
    """A file of a snapshot as the Hub would describe it; its blob's name is its etag."""
    etag = path.readlink().name if path.is_symlink() else ""
    known = etag if _HASH.fullmatch(etag) else None
    return RemoteFile(path.relative_to(snapshot).as_posix(), path.stat().st_size, known)


def holder(folder: Path) -> Path | None:
    """The snapshot that a checkpoint's folder is in (or is), if it is in a cache at all."""
    for place in (folder, folder.parent):
        if place.parent.name == "snapshots" and place.parent.parent.name.startswith("models--"):
            return place
    return None


def partials(folder: Path) -> list[Path]:
    """What has come so far of files of the repository that a checkpoint's folder belongs to."""
    snapshot = holder(folder)
    return list(snapshot.parent.parent.glob(f"blobs/*{PARTIAL}")) if snapshot else []


def remove(folder: Path) -> None:
    """Remove a checkpoint from the cache that it lies in; what else is there of the commit stays.

    Args:
        folder: with the links to its files: a snapshot, or `original` in one.

    Raises:
        OSError: it cannot be removed.
    """
    snapshot = holder(folder)
    if snapshot is None:
        raise ValueError(f"{folder} is in no cache")
    for path in _own(snapshot, "original" if folder != snapshot else "hf"):
        _remove_file(path, snapshot.parent.parent)
    for partial in partials(folder):
        partial.unlink()
    if not _files(snapshot):
        _remove_commit(snapshot)


def _own(snapshot: Path, source: Source) -> list[Path]:
    """A checkpoint's files; with the tokenizer's only if nothing else is there to need them."""
    names = {path: path.relative_to(snapshot).as_posix() for path in _files(snapshot)}
    needed = [path for path, name in names.items() if is_needed(name, source)]
    if len(needed) == len(names):
        return needed
    return [path for path in needed if not is_tokenizer(names[path])]


def _files(folder: Path) -> list[Path]:
    """All that are below it, links to nowhere as well."""
    return [path for path in folder.rglob("*") if path.is_symlink() or path.is_file()]


def _remove_file(path: Path, repo: Path) -> None:
    """A file's link, and its blob if no other commit's file is the same."""
    blob = path.parent / path.readlink() if path.is_symlink() else None
    path.unlink()
    if blob is None or blob.parent.resolve() != (repo / "blobs").resolve():
        return
    others = (other for other in repo.glob("snapshots/**/*") if other.is_symlink())
    if not any(other.readlink().name == blob.name for other in others):
        blob.unlink(missing_ok=True)


def _remove_commit(snapshot: Path) -> None:
    """A snapshot that holds no file any more; and the repository, if it was the last one."""
    repo = snapshot.parent.parent
    shutil.rmtree(snapshot, ignore_errors=True)
    for ref in [path for path in repo.glob("refs/**/*") if path.is_file()]:
        if ref.read_text().strip() == snapshot.name:
            ref.unlink()
    if not _files(repo / "blobs") and not any(repo.glob("snapshots/*")):
        shutil.rmtree(repo)
