"""Files of arrays: what is written comes back; what is damaged, or of others, is not believed."""

from __future__ import annotations

import logging
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from gptoss_mlx.errors import DiskError
from gptoss_mlx.store import Entry, Store

ABOUT = {"tokens": [1, 2, 3], "parent": None}


def arrays() -> dict[str, mx.array]:
    """Some arrays of several dtypes."""
    return {
        "keys": mx.arange(24, dtype=mx.float32).reshape(2, 3, 4),
        "scales": mx.ones((5,), mx.bfloat16),
        "words": mx.array([1, 2**31], mx.uint32),
    }


def written(folder: Path, fingerprint: str = "m") -> tuple[Store, Entry]:
    """A store with one file."""
    store = Store(folder, fingerprint)
    return store, store.write(arrays(), ABOUT)


def test_what_is_written_comes_back(tmp_path: Path) -> None:
    """The arrays bit by bit and what was said about them, also in another process's store."""
    written(tmp_path / "made" / "on the way")
    store = Store(tmp_path / "made" / "on the way", "m")
    [entry] = store.entries()
    assert entry.about == ABOUT
    assert entry.nbytes == entry.path.stat().st_size > 0
    found = store.read(entry)
    assert found is not None
    assert found.keys() == arrays().keys()
    for name, expected in arrays().items():
        assert found[name].dtype == expected.dtype
        assert mx.array_equal(found[name], expected)
    assert [path.suffix for path in store.folder.iterdir()] == [".safetensors"]


@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.99])
def test_truncated_files(tmp_path: Path, caplog: pytest.LogCaptureFixture, share: float) -> None:
    """They are ignored, wherever they end, and the log names them."""
    store, entry = written(tmp_path)
    data = entry.path.read_bytes()
    entry.path.write_bytes(data[: int(len(data) * share)])
    assert store.read(entry) is None
    assert all(store.read(found) is None for found in store.entries())
    assert entry.path.name in caplog.text
    assert "damaged" in caplog.text


def test_changed_bytes(tmp_path: Path) -> None:
    """One bit anywhere is enough to disbelieve a file."""
    store, entry = written(tmp_path)
    data = bytearray(entry.path.read_bytes())
    for at in np.random.default_rng(0).integers(0, len(data), 30):
        data[at] ^= 4
        entry.path.write_bytes(data)
        assert store.read(entry) is None
        data[at] ^= 4
    entry.path.write_bytes(data)
    assert store.read(entry) is not None


def test_other_models_and_versions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Their files are left alone, and the log says so."""
    caplog.set_level(logging.INFO)
    _, entry = written(tmp_path, "another")
    monkeypatch.setattr("gptoss_mlx.store._FORMAT", "gptoss-mlx prompt cache 0")
    written(tmp_path)
    monkeypatch.undo()
    assert list(Store(tmp_path, "m").entries()) == []
    assert caplog.text.count("of another model or another version") == 2
    assert entry.path.exists()


def test_foreign_files(tmp_path: Path) -> None:
    """A folder may hold anything else."""
    store, entry = written(tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "weights.safetensors").write_bytes(b"not a checkpoint")
    mx.save_safetensors(str(tmp_path / "other.safetensors"), {"a": mx.ones(3)})
    assert [found.path for found in store.entries()] == [entry.path]


def test_removed_files(tmp_path: Path) -> None:
    """What is removed is gone, and so is what somebody else removed."""
    store, entry = written(tmp_path)
    store.remove(entry)
    store.remove(entry)
    assert list(store.entries()) == []
    assert store.read(entry) is None


def test_a_folder_that_is_none(tmp_path: Path) -> None:
    """One line says where nothing can be kept, and why."""
    (tmp_path / "file").write_text("")
    with pytest.raises(DiskError, match=r"file: no prompts can be kept there: File exists"):
        Store(tmp_path / "file", "m")


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It leaves no part of a file behind."""
    store = Store(tmp_path, "m")

    def full(path: str, *_: object) -> None:
        Path(path).write_bytes(b"half of it")
        raise RuntimeError("No space left on device")

    monkeypatch.setattr(mx, "save_safetensors", full)
    with pytest.raises(DiskError, match="No space left"):
        store.write(arrays(), ABOUT)
    assert list(tmp_path.iterdir()) == []
