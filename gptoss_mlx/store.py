"""Arrays in files that are only believed if they are whole, and of this program and this model.

A file's name ends in the CRC-32 of its bytes (RFC 1952), which is checked before an array is used;
what does not fit is left alone, and the log says so. It does not know what the arrays are.
"""

from __future__ import annotations

import json
import logging
import os
import tempfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import mlx.core as mx

from gptoss_mlx.errors import DiskError

__all__ = ["Entry", "Store"]

logger = logging.getLogger(__name__)

_FORMAT = "gptoss-mlx prompt cache 1"
_SUFFIX = ".safetensors"
_BLOCK = 1 << 22
_Loaded = tuple[dict[str, mx.array], dict[str, str]]


@dataclass(frozen=True)
class Entry:
    """One file: what was said about its arrays when it was written."""

    path: Path
    about: dict[str, Any]

    @property
    def nbytes(self) -> int:
        """Its size."""
        return self.path.stat().st_size


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
            folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()
        except OSError as error:
            raise DiskError(f"{folder}: no prompts can be kept there: {error.strerror}") from error

    def entries(self) -> Iterator[Entry]:
        """The files of this program and this model, unless damage shows already."""
        for path in sorted(self.folder.glob(f"*{_SUFFIX}")):
            try:
                _, metadata = cast("_Loaded", mx.load(str(path), return_metadata=True))
                about = cast("dict[str, Any]", json.loads(metadata.get("about", "{}")))
            except (RuntimeError, ValueError, OSError):
                logger.warning("%s: damaged, ignored", path)
                continue
            made_by = {key: metadata.get(key) for key in self._made_by}
            if made_by == self._made_by:
                yield Entry(path, about)
            else:
                logger.info("%s: of another model or another version, ignored", path)

    def write(self, arrays: dict[str, mx.array], about: dict[str, Any]) -> Entry:
        """Add a file, whole or not at all.

        Raises:
            DiskError: there is no room.
        """
        handle, name = tempfile.mkstemp(suffix=_SUFFIX + ".part", dir=self.folder)
        os.close(handle)
        part = Path(name)
        try:
            metadata = {**self._made_by, "about": json.dumps(about, separators=(",", ":"))}
            whole = part.with_suffix("")  # MLX wants this ending
            mx.save_safetensors(str(whole), arrays, metadata)
            path = self.folder / f"{whole.stem}-{_checksum(whole):08x}{_SUFFIX}"
            whole.rename(path)
        except (OSError, RuntimeError) as error:
            part.with_suffix("").unlink(missing_ok=True)
            raise DiskError(f"{self.folder}: a prompt cannot be kept: {error}") from error
        finally:
            part.unlink(missing_ok=True)
        return Entry(path, about)

    def read(self, entry: Entry) -> dict[str, mx.array] | None:
        """The arrays of a file, in memory; None if it is gone or damaged."""
        try:
            if not entry.path.stem.endswith(f"-{_checksum(entry.path):08x}"):
                raise ValueError("its checksum is wrong")
            arrays = cast("dict[str, mx.array]", mx.load(str(entry.path)))
            mx.eval(arrays)
        except (OSError, RuntimeError, ValueError) as error:
            logger.warning("%s: damaged, ignored (%s)", entry.path, error)
            return None
        return arrays

    def remove(self, entry: Entry) -> None:
        """Delete a file."""
        entry.path.unlink(missing_ok=True)


def _checksum(path: Path) -> int:
    value = 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            value = zlib.crc32(block, value)
    return value
