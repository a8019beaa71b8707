"""Temporary folders: what is removed, and when."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gptoss_mlx.tools.python import scratch
from gptoss_mlx.tools.python.processes import UNLISTED, folder_bytes
from gptoss_mlx.tools.python.scratch import Scratch, make_listable, remove


def test_own_folder(tmp_path: Path) -> None:
    """It is this user's alone, and goes with all that is in it."""
    made = Scratch("x-", tmp_path)
    assert made.path.stat().st_mode & 0o777 == 0o700
    (made.path / "a").mkdir()
    (made.path / "a" / "file").write_text("x")
    made.remove()
    assert list(tmp_path.iterdir()) == []


def test_links_are_not_followed(tmp_path: Path) -> None:
    """What a link leads to stays."""
    kept = tmp_path / "kept"
    kept.mkdir(mode=0o755)
    (kept / "file").touch()
    made = tmp_path / "made"
    made.mkdir()
    (made / "folder").symlink_to(kept)
    (made / "file").symlink_to(kept / "file")
    remove(made)
    assert list(tmp_path.iterdir()) == [kept]
    assert [path.name for path in kept.iterdir()] == ["file"]
    assert kept.stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("mode", [0o000, 0o300, 0o500])
def test_closed_folders(tmp_path: Path, mode: int) -> None:
    """Folders that cannot be listed or changed are opened first."""
    inner = tmp_path / "made" / "a" / "b"
    inner.mkdir(parents=True)
    (inner / "file").touch()
    for path in (inner, inner.parent, inner.parent.parent):
        path.chmod(mode)
    remove(tmp_path / "made")
    assert list(tmp_path.iterdir()) == []


def test_deep_folders(tmp_path: Path) -> None:
    """Folders whose paths are longer than the system takes are not overlooked, and removed."""
    made = tmp_path / "made"
    made.mkdir()
    _nest(made)
    found = folder_bytes([made])
    remove(made)
    assert found > UNLISTED
    assert list(tmp_path.iterdir()) == []


def _nest(made: Path) -> None:
    folder = os.open(made, os.O_RDONLY)
    for _ in range(2000):
        os.mkdir("deep", dir_fd=folder)
        inner = os.open("deep", os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = inner
    os.close(folder)


@pytest.mark.parametrize("mode", [0o000, 0o300])
def test_what_cannot_be_listed(tmp_path: Path, mode: int) -> None:
    """A closed folder counts as more than there is, until it is opened."""
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    (tmp_path / "a" / "link").symlink_to("/")
    inner.chmod(mode)
    inner.parent.chmod(mode)
    if os.getuid():  # root may list everything
        assert folder_bytes([tmp_path]) > UNLISTED
    make_listable(tmp_path)
    assert folder_bytes([tmp_path]) < UNLISTED
    assert [path.stat().st_mode & 0o777 for path in (inner.parent, inner)] == [0o700] * 2


def test_folders_of_the_dead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new one takes away those without owner, and only those."""
    monkeypatch.setattr(scratch, "STALE_SECONDS", -1.0)
    stale, other, link = tmp_path / "x-stale", tmp_path / "y-other", tmp_path / "x-link"
    for path in (stale, other):
        path.mkdir()
        (path / "file").touch()
    stale.chmod(0o300)
    link.symlink_to(other)
    living = Scratch("x-", tmp_path)
    second = Scratch("x-", tmp_path)
    assert {*tmp_path.iterdir()} == {living.path, second.path, other, link}
    assert (other / "file").exists()
    living.remove()
    second.remove()


def test_young_folders_stay(tmp_path: Path) -> None:
    """One that was just made may have an owner that has not locked it yet."""
    (tmp_path / "x-young").mkdir()
    Scratch("x-", tmp_path).remove()
    assert [path.name for path in tmp_path.iterdir()] == ["x-young"]
