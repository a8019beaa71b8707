"""Arrays in files that are only believed if they are whole, and of this program and this model.

A file's name ends in the CRC-32 of its bytes (RFC 1952), which is checked before an array is used;
what does not fit is left alone, and the log says so. It does not know what the arrays are.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import tempfile
import time
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import mlx.core as mx

from gptoss_mlx.errors import DiskError

__all__ = ["Entry", "Store"]

logger = logging.getLogger(__name__)

_FORMAT = "gptoss-mlx prompt cache 1"
_SUFFIX = ".safetensors"
_PATTERN = f"*-{8 * '[0-9a-f]'}{_SUFFIX}"
_WRITING = ".writing-"  # folders of files that are not whole yet
_BLOCK = 1 << 22
_Loaded = tuple[dict[str, mx.array], dict[str, str]]


@dataclass(frozen=True)
class Entry:
    """One file: what was said about its arrays when it was written."""

    path: Path
    about: dict[str, Any]
    nbytes: int


class Store:
    """A folder of such files.

    Args:
        folder: made if it is missing.
        fingerprint: of the model; files with another one are ignored.

    Raises:
        DiskError: the folder cannot be made, or not be written.
    """

    def __init__(self, folder: Path, fingerprint: str) -> None:
        self.folder = folder
        self._made_by = {"format": _FORMAT, "model": fingerprint}
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()
        except OSError as error:
            raise DiskError(f"{folder}: no prompts can be kept there: {error.strerror}") from error

    def entries(self) -> Iterator[Entry]:
        """The files of this program and this model, unless damage shows already."""
        for path in sorted(self.folder.glob(_PATTERN)):
            try:
                _, metadata = cast("_Loaded", mx.load(str(path), return_metadata=True))
                about = cast("dict[str, Any]", json.loads(metadata.get("about", "{}")))
                entry = Entry(path, about, path.stat().st_size)
            except (RuntimeError, ValueError, OSError):
                logger.warning("%s: damaged, ignored", path)
                continue
            made_by = {key: metadata.get(key) for key in self._made_by}
            if made_by == self._made_by:
                yield entry
            else:
                logger.info("%s: of another model or another version, ignored", path)

    def write(self, arrays: dict[str, mx.array], about: dict[str, Any]) -> Entry:
        """Add a file, whole or not at all; nobody else may read it.

        Raises:
            DiskError: there is no room.
        """
        text = json.dumps(about, separators=(",", ":"))
        name = hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
        self._remove_what_killed_runs_left()
        try:
            with tempfile.TemporaryDirectory(prefix=_WRITING, dir=self.folder) as making:
                whole = Path(making) / f"{name}{_SUFFIX}"
                mx.save_safetensors(str(whole), arrays, {**self._made_by, "about": text})
                whole.chmod(0o600)
                path = self.folder / f"{name}-{_checksum(whole):08x}{_SUFFIX}"
                whole.rename(path)
            return Entry(path, about, path.stat().st_size)
        except (OSError, RuntimeError) as error:
            raise DiskError(f"{self.folder}: a prompt cannot be kept: {error}") from error

    def read(self, entry: Entry) -> dict[str, mx.array] | None:
        """The arrays of a file, in memory; None if it is gone, or damaged: then it is deleted."""
        try:
            if not entry.path.stem.endswith(f"-{_checksum(entry.path):08x}"):
                raise ValueError("its checksum is wrong")
            arrays = cast("dict[str, mx.array]", mx.load(str(entry.path)))
            mx.eval(arrays)
        except FileNotFoundError:
            return None
        except (OSError, RuntimeError, ValueError) as error:
            logger.warning("%s: damaged, deleted (%s)", entry.path, error)
            self.remove(entry)
            return None
        return arrays

    def keep(self, entry: Entry) -> bool:
        """Note that a file was used now; False if it is gone."""
        try:
            os.utime(entry.path)
        except OSError:
            return False
        return True

    def remove(self, entry: Entry) -> None:
        """Delete a file."""
        entry.path.unlink(missing_ok=True)

    def _remove_what_killed_runs_left(self) -> None:
        for path in self.folder.glob(f"{_WRITING}*"):
            with suppress(OSError):
                if time.time() - path.stat().st_mtime > 24 * 3600:
                    shutil.rmtree(path, ignore_errors=True)


def _checksum(path: Path) -> int:
    value = 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            value = zlib.crc32(block, value)
    return value
