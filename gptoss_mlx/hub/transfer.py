"""One file from the Hub: gone on with where a run before stopped, tried again, and checked.

What has come lies beside the target in a partial file, which only becomes the target once its size
and hash are right. So a killed run leaves nothing that is taken for whole. The requests are
huggingface-hub's; its own downloads begin each file anew after they were killed, so what has come
is kept here.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import BinaryIO, Protocol

from huggingface_hub import constants, utils
from huggingface_hub.errors import HfHubHTTPError

from gptoss_mlx.errors import DiskError, HubError
from gptoss_mlx.hub.client import REFUSALS, Hub, is_transient, wait
from gptoss_mlx.hub.manifest import RemoteFile

__all__ = ["Watcher", "fetch", "is_right"]

_BLOCK = 1 << 20
_SMALL = 1 << 16  # such files are fetched anew: servers send them without ranges and lengths
_FULL = (errno.ENOSPC, errno.EDQUOT)


class Watcher(Protocol):
    """Is told how a download goes on."""

    def receiving(self, file: RemoteFile, done: int) -> None:
        """So many bytes of a file are here."""

    def checking(self, file: RemoteFile, done: int) -> None:
        """So many bytes of a file were read again, to hash them."""

    def finished(self, file: RemoteFile) -> None:
        """A file is here, whole and right."""

    def note(self, text: str) -> None:
        """Something went wrong that is being dealt with."""


def fetch(hub: Hub, url: str, file: RemoteFile, target: Path, partial: Path, on: Watcher) -> None:
    """Bring a file here; what is damaged is fetched anew, once.

    Args:
        hub: for the token, and how patient to be.
        url: of the file; redirects are followed, anew for each attempt, as signed ones expire.
        file: what it must be.
        target: appears when the file is whole.
        partial: on the same disk; remains if this is interrupted, for the next run.
        on: is told.

    Raises:
        HubError: it is damaged twice, or another program is fetching it.
        DiskError: it cannot be written.
        OSError, httpx2.HTTPError: one of `client.REFUSALS`.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    for is_last in (False, True):
        with _locked(partial) as handle:
            _receive(hub, url, file, partial, on)
            if is_right(partial, file, on):
                os.fsync(handle.fileno())  # before its name says that it is whole
                partial.replace(target)
                return
            partial.unlink()
        if not is_last:
            on.note(f"{file.name} is damaged: its hash is wrong. Fetching it anew.")
    raise HubError(
        f"{file.name} came damaged twice: its hash is not the one that {hub.endpoint} names. "
        "Try again later, or without a proxy or mirror in between"
    )


def is_right(path: Path, file: RemoteFile, on: Watcher | None = None) -> bool:
    """Whether the size and hash of a file on disk are those that it must have."""
    if path.stat().st_size != file.size:
        return False
    if file.etag is None:
        return True
    digest = hashlib.sha256() if len(file.etag) == 64 else hashlib.sha1(usedforsecurity=False)
    if digest.name == "sha1":
        digest.update(f"blob {file.size}\0".encode())  # as git hashes
    with path.open("rb") as contents:
        while block := contents.read(_BLOCK):
            digest.update(block)
            if on is not None:
                on.checking(file, contents.tell())
    return digest.hexdigest() == file.etag


def _receive(hub: Hub, url: str, file: RemoteFile, partial: Path, on: Watcher) -> None:
    """Fill the partial file, patiently as long as more comes."""
    in_vain = 0
    while True:
        have = partial.stat().st_size
        if have > file.size or have < file.size < _SMALL:
            os.truncate(partial, have := 0)
        on.receiving(file, have)
        error = _attempt(hub, url, file, partial, have, on)
        if error is None:
            return
        in_vain = 0 if partial.stat().st_size > have else in_vain + 1
        if in_vain > hub.patience:
            raise error
        on.note(f"{file.name}: {_reason(error)}; going on.")
        wait(hub, in_vain)


def _attempt(
    hub: Hub, url: str, file: RemoteFile, partial: Path, have: int, on: Watcher
) -> Exception | None:
    """Append what is missing; returns what went wrong if it may go well another time."""
    if have == file.size:
        return None
    headers = {**utils.build_hf_headers(token=hub.token), "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    timeout = constants.HF_HUB_DOWNLOAD_TIMEOUT
    try:
        with utils.http_stream_backoff(
            "GET", url, max_retries=0, headers=headers, timeout=timeout
        ) as response:
            utils.hf_raise_for_status(response)
            is_rest = response.status_code == HTTPStatus.PARTIAL_CONTENT
            if not (is_rest or _may_be_whole(response.headers, file, have)):
                return HubError(f"{file.name}: {hub.endpoint} sends something else")
            _write(response.iter_bytes(), file, partial, on, begins_anew=not is_rest)
    except REFUSALS as error:
        if not is_transient(error):
            raise
        return error
    if partial.stat().st_size < file.size:
        return HubError(f"{file.name}: fewer bytes come than {hub.endpoint} announces")
    return None


def _may_be_whole(headers: Mapping[str, str], file: RemoteFile, have: int) -> bool:
    """Whether this is the file from its beginning: a login page must not replace what has come."""
    if "Content-Length" not in headers or "Content-Encoding" in headers:
        return have == 0
    return headers["Content-Length"] == str(file.size)


def _reason(error: Exception) -> str:
    if isinstance(error, HfHubHTTPError):
        return f"the server fails (status {error.response.status_code})"
    return "something else was sent" if isinstance(error, HubError) else "the connection broke"


def _write(
    blocks: Iterator[bytes], file: RemoteFile, partial: Path, on: Watcher, *, begins_anew: bool
) -> None:
    try:
        with partial.open("wb" if begins_anew else "ab") as contents:
            for block in blocks:
                contents.write(block)
                on.receiving(file, contents.tell())
    except OSError as error:
        if isinstance(error, REFUSALS):
            raise
        raise DiskError(_unwritable(partial, error)) from error


def _unwritable(partial: Path, error: OSError) -> str:
    why = "the disk is full" if error.errno in _FULL else error.strerror
    return f"{partial.parent}: {why}; what was fetched stays, and the same command goes on"


@contextmanager
def _locked(partial: Path) -> Generator[BinaryIO]:
    """Hold the partial file, which the system releases should this process die."""
    with partial.open("ab") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise HubError(f"another gptoss-mlx is fetching {partial}: wait for it") from None
        yield handle
