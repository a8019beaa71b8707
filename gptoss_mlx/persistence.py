"""The prefix cache on disk: what is in it at the end is there again at the next start.

A file for each branch of the tree: its segment and windows, and the ids of all tokens up to its
end, by which it finds its parent again. Nothing is read before a prompt can use it. It does not
know when that is.

    layer.N.I              the Ith array of the Nth full layer, as segments store them
    windows.P.keys/values  the sliding layers' windows at position P
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import mlx.core as mx

from gptoss_mlx.branches import Contents, Held
from gptoss_mlx.cache import Windows
from gptoss_mlx.errors import DiskError
from gptoss_mlx.prefix import PrefixCache
from gptoss_mlx.store import Entry, Store

__all__ = ["restore", "save"]

logger = logging.getLogger(__name__)


class _File:
    """A branch in a file."""

    def __init__(self, entry: Entry, store: Store, prefix: PrefixCache) -> None:
        self.entry = entry
        self.nbytes = entry.nbytes
        self.end = len(entry.about["tokens"])
        self._store = store
        self._prefix = prefix

    def load(self) -> Contents | None:
        """Read it; None if it is damaged."""
        arrays = self._store.read(self.entry)
        if arrays is None:
            return None
        segment = self._prefix.new_segment()
        layers = [
            [arrays[f"layer.{n}.{i}"] for i in range(self.entry.about["arrays"])]
            for n in range(len(segment.layers))
        ]
        segment.restore(layers, self._prefix.dtype)
        windows = [
            Windows(p, arrays[f"windows.{p}.keys"], arrays[f"windows.{p}.values"])
            for p in self.entry.about["places"]
        ]
        return Contents(segment, windows)


def restore(prefix: PrefixCache, folder: Path, fingerprint: str) -> None:
    """Let a prefix cache know the branches of a folder; files that no prompt can reach go.

    Raises:
        DiskError: the folder cannot be made, or not be written.
    """
    store = Store(folder, fingerprint)
    for entry in sorted(store.entries(), key=lambda entry: entry.about["start"]):
        about = entry.about
        source = _File(entry, store, prefix)
        if not prefix.plant(about["tokens"], about["start"], about["places"], source):
            store.remove(entry)


def save(
    prefix: PrefixCache,
    folder: Path,
    fingerprint: str,
    limit: int,
    should_stop: Callable[[], bool] = lambda: False,
) -> None:
    """Write what is in memory and not yet in the folder, as far as the disk has room.

    Args:
        prefix: no sequence is running.
        folder: as for `restore`.
        fingerprint: of the model.
        limit: bytes; the files that were used longest ago go until the folder keeps to it.
        should_stop: asked before each file: somebody waits for the end.
    """
    store = Store(folder, fingerprint)
    for held in prefix.held():
        source = held.source
        file = source if isinstance(source, _File) else None
        is_same = file is not None and file.end == len(held.tokens)
        if file is not None and is_same and store.keep(file.entry):
            continue
        if should_stop():
            break
        try:
            store.write(*_arrays(held))
        except DiskError as error:
            logger.warning("%s", error)
            break
        if file is not None and not is_same:
            store.remove(file.entry)  # the shorter one
    _keep_to(limit, store)


def _arrays(held: Held) -> tuple[dict[str, mx.array], dict[str, object]]:
    segment, windows = held.contents
    layers = segment.exported(len(held.tokens) - held.start)
    arrays = {f"layer.{n}.{i}": a for n, layer in enumerate(layers) for i, a in enumerate(layer)}
    for place in windows:
        arrays[f"windows.{place.position}.keys"] = place.keys
        arrays[f"windows.{place.position}.values"] = place.values
    about: dict[str, object] = {
        "tokens": held.tokens,
        "start": held.start,
        "places": [place.position for place in windows],
        "arrays": len(layers[0]),
    }
    return arrays, about


def _keep_to(limit: int, store: Store) -> None:
    entries = sorted(store.entries(), key=lambda entry: _last_use(entry.path))
    total = sum(entry.nbytes for entry in entries)
    for entry in entries:
        if total <= limit:
            return
        total -= entry.nbytes
        store.remove(entry)


def _last_use(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:  # another process has removed it
        return 0.0
