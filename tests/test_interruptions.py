"""A conversion is whole or absent: whatever interrupts it, and wherever it was meant to go."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import Mock

import mlx.core as mx
import pytest
from checkpoints import at_call, fingerprint, names_in

from gptoss_mlx.convert import conversion, convert, reader, writer
from gptoss_mlx.errors import CheckpointError, DiskError, GptOssError, UsageError
from gptoss_mlx.weights import load_weights

pytestmark = pytest.mark.usefixtures("no_tokenizer", "many_chunks")

NOBODY = 65_534


def test_control_c_leaves_nothing(source: Path, tmp_path: Path, expected: dict[str, str]) -> None:
    """KeyboardInterrupt in the middle passes on and cleans up, and the next run succeeds."""
    interrupt = Mock(side_effect=KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        convert(source, tmp_path / "out", on_progress=at_call(9, interrupt))
    assert names_in(tmp_path) == []
    convert(source, tmp_path / "out")
    assert fingerprint(tmp_path / "out") == expected


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("writes", [0, 1, 17])
def test_a_disk_that_fills_up_leaves_nothing(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, writes: int
) -> None:
    """Full (or over quota) after n writes: an error that says so, and no trace."""
    real, remaining = os.pwrite, iter(range(writes))

    def pwrite(fd: int, data: memoryview, offset: int) -> int:
        if next(remaining, None) is None:
            raise OSError(number, os.strerror(number))
        return real(fd, data, offset)

    monkeypatch.setattr(os, "pwrite", pwrite)
    with pytest.raises(DiskError, match=rf"disk filled up.*{tmp_path / 'out'}"):
        convert(source, tmp_path / "out")
    assert names_in(tmp_path) == []


def test_a_disk_that_fills_up_at_the_flush_leaves_nothing(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """File systems that allocate late report a full disk at fsync: the same error, no trace."""

    def fsync(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(DiskError, match="disk filled up"):
        convert(source, tmp_path / "out")
    assert names_in(tmp_path) == []


def test_short_writes_are_continued(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, expected: dict[str, str]
) -> None:
    """pwrite may write less than it was given: the rest follows, at the right place."""
    real = os.pwrite

    def pwrite(fd: int, data: memoryview, offset: int) -> int:
        return real(fd, data[: len(data) // 2 + 1], offset)

    monkeypatch.setattr(os, "pwrite", pwrite)
    convert(source, tmp_path / "out")
    assert fingerprint(tmp_path / "out") == expected


def test_a_file_larger_than_the_file_system_takes(source: Path, tmp_path: Path) -> None:
    """FAT disks end at 4 GiB a file (here: a limit of this process): a clear error, no trace."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(DiskError):
            convert(source, tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert names_in(tmp_path) == []


_STUCK_CONVERSION = """
import sys, time
from pathlib import Path
from gptoss_mlx.convert import convert, reader

reader.CHUNK_BYTES = 20_000
def stop_in_the_middle(done, total):
    if done > total // 2:
        print("in the middle", flush=True)
        time.sleep(60)
convert(Path(sys.argv[1]), Path(sys.argv[2]), on_progress=stop_in_the_middle)
"""


def test_a_killed_run_leaves_no_model_and_the_next_works(
    source: Path, tmp_path: Path, expected: dict[str, str]
) -> None:
    """After SIGKILL only a hidden folder is there, which does not load; a rerun clears it away."""
    command = [sys.executable, "-c", _STUCK_CONVERSION, str(source), str(tmp_path / "out")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "in the middle\n"
        with pytest.raises(UsageError, match="another conversion"):
            convert(source, tmp_path / "out")
        child.kill()
    assert child.returncode == -signal.SIGKILL
    assert not (tmp_path / "out").exists()
    with pytest.raises(GptOssError):
        load_weights(tmp_path / ".out.gptoss-mlx-partial", mx.float32)
    convert(source, tmp_path / "out")
    assert fingerprint(tmp_path / "out") == expected
    assert names_in(tmp_path) == ["out"]


def test_a_partial_folder_is_refused_as_a_source(source: Path, tmp_path: Path) -> None:
    """What a killed run left is not accepted as a checkpoint to convert either."""

    def keep_the_half() -> None:
        shutil.copytree(tmp_path / ".out.gptoss-mlx-partial", tmp_path / "kept")

    convert(source, tmp_path / "out", on_progress=at_call(9, keep_the_half))
    with pytest.raises(CheckpointError):
        convert(tmp_path / "kept", tmp_path / "again")


def test_not_enough_space_is_found_beforehand(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Too little free space is refused before a byte is written, with both sizes."""
    monkeypatch.setattr(shutil, "disk_usage", Mock(return_value=Mock(free=3_000_000)))
    with pytest.raises(DiskError, match=r"not enough disk space.*0\.0 GB needed, 0\.0 GB free"):
        convert(source, tmp_path / "out")
    assert names_in(tmp_path) == []


@pytest.fixture
def forbidden() -> Iterator[Path]:
    """A folder that this process may read and not write; root steps down for the test's time."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "place").mkdir(mode=0o555)
        folder.chmod(0o755)
        user = os.geteuid()
        if user == 0:
            os.seteuid(NOBODY)
        yield folder / "place"
        if user == 0:
            os.seteuid(user)
        (folder / "place").chmod(0o755)


def test_a_folder_without_write_permission(forbidden: Path) -> None:
    """No right to write: the folder is named, and no traceback shown."""
    with (
        pytest.raises(DiskError, match=f"{forbidden / 'out'}: Permission denied"),
        writer.new_directory(forbidden / "out", force=False, needed=0),
    ):
        pass
    assert names_in(forbidden) == []


def test_a_read_only_file_system(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A read-only disk (simulated at mkdir) is reported like a missing permission."""

    def mkdir(path: Path, *_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    monkeypatch.setattr(Path, "mkdir", mkdir)
    with pytest.raises(DiskError, match=f"{tmp_path}: Read-only file system"):
        convert(source, tmp_path / "out")


def test_a_source_that_cannot_be_read_is_not_called_unwritable(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error while reading the source does not blame the destination."""

    def unreadable(*_: object) -> Iterator[reader.Chunk]:
        raise PermissionError(errno.EACCES, "Permission denied", str(source / "x.safetensors"))

    monkeypatch.setattr(conversion, "read_chunks", unreadable)
    with pytest.raises((GptOssError, PermissionError), match=r"x\.safetensors"):
        convert(source, tmp_path / "out")


@pytest.mark.parametrize("place", ["file/out", "file/deeper/out"])
def test_a_file_where_a_folder_is_needed(source: Path, tmp_path: Path, place: str) -> None:
    """A destination below a file is refused with a line of its own."""
    (tmp_path / "file").write_text("mine")
    with pytest.raises(GptOssError, match="file"):
        convert(source, tmp_path / place)
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("relation", ["inside", "same", "around", "through a link"])
def test_source_and_destination_must_not_overlap(
    source: Path, tmp_path: Path, relation: str
) -> None:
    """Neither folder may hold the other, --force or not: else one would be lost to the other."""
    shutil.copytree(source, tmp_path / "a" / "original")
    inner = tmp_path / "a" / "original"
    (tmp_path / "link").symlink_to(inner)
    destination = {
        "inside": inner / "mlx",
        "same": inner,
        "around": tmp_path / "a",
        "through a link": tmp_path / "link" / "mlx",
    }[relation]
    before = fingerprint(tmp_path)
    with pytest.raises(UsageError, match=r"overlap; write the conversion elsewhere"):
        convert(inner, destination, force=True)
    assert fingerprint(tmp_path) == before
