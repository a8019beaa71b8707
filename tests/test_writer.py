"""What --force may replace, what it must not touch, who may write, and how shards are cut."""

from __future__ import annotations

import errno
import json
import shutil
from pathlib import Path

import pytest
from checkpoints import TINY, at_call, fingerprint, names_in

from gptoss_mlx.convert import convert, reader, writer
from gptoss_mlx.convert.names import TensorSpec
from gptoss_mlx.convert.synthetic import write_random_checkpoint
from gptoss_mlx.convert.writer import ShardWriter
from gptoss_mlx.errors import DiskError, GptOssError, UsageError

pytestmark = pytest.mark.usefixtures("no_tokenizer", "many_chunks")


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another one, with other weights."""
    folder = tmp_path_factory.mktemp("source") / "checkpoint"
    write_random_checkpoint(folder, TINY, seed=1)
    return folder


def test_an_existing_destination_is_refused(source: Path, other: Path, tmp_path: Path) -> None:
    """Without --force a checkpoint at the destination stays, and the message names the option."""
    convert(other, tmp_path / "out")
    before = fingerprint(tmp_path)
    with pytest.raises(UsageError, match=rf"{tmp_path / 'out'} exists.*--force"):
        convert(source, tmp_path / "out")
    assert fingerprint(tmp_path) == before


def test_force_replaces_a_checkpoint(
    source: Path, other: Path, tmp_path: Path, expected: dict[str, str]
) -> None:
    """With --force the new checkpoint is there afterwards, and nothing else."""
    convert(other, tmp_path / "out")
    convert(source, tmp_path / "out", force=True)
    assert fingerprint(tmp_path / "out") == expected
    assert names_in(tmp_path) == ["out"]


def test_force_keeps_the_old_one_until_the_new_one_is_whole(
    source: Path, other: Path, tmp_path: Path
) -> None:
    """Interrupted at the last chunk, --force has changed nothing."""
    convert(other, tmp_path / "out")
    before = fingerprint(tmp_path)

    def at_the_end(done: int, total: int) -> None:
        assert fingerprint(tmp_path / "out") == {
            name.removeprefix("out/"): digest for name, digest in before.items()
        }
        if done == total:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(source, tmp_path / "out", force=True, on_progress=at_the_end)
    assert fingerprint(tmp_path) == before


@pytest.mark.parametrize("failing", [1, 2])
def test_force_keeps_the_old_one_if_a_rename_fails(
    source: Path, other: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    """Whichever rename of the exchange fails, a whole checkpoint stays at the destination."""
    convert(other, tmp_path / "out")
    before = fingerprint(tmp_path)
    real, calls = Path.rename, iter(range(1, 100))

    def rename(path: Path, target: Path) -> Path:
        if next(calls) == failing:
            raise OSError(errno.EIO, "Input/output error")
        return real(path, target)

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises((OSError, DiskError)):
        convert(source, tmp_path / "out", force=True)
    assert fingerprint(tmp_path) == before


@pytest.mark.parametrize(
    "contents",
    [
        pytest.param({"notes.txt": "mine"}, id="notes"),
        pytest.param({"config.json": '{"port": 8080}', "server.py": ""}, id="another-config.json"),
    ],
)
def test_force_refuses_what_is_no_checkpoint(
    source: Path, tmp_path: Path, contents: dict[str, str]
) -> None:
    """--force replaces checkpoints; a folder with other things in it is not one."""
    (tmp_path / "out").mkdir()
    for name, text in contents.items():
        (tmp_path / "out" / name).write_text(text)
    before = fingerprint(tmp_path)
    with pytest.raises(UsageError, match=r"not a checkpoint; --force replaces only checkpoints"):
        convert(source, tmp_path / "out", force=True)
    assert fingerprint(tmp_path) == before


def test_force_refuses_a_file(source: Path, tmp_path: Path) -> None:
    """A file at the destination is never replaced."""
    (tmp_path / "out").write_text("mine")
    with pytest.raises(UsageError, match="not a checkpoint"):
        convert(source, tmp_path / "out", force=True)
    assert (tmp_path / "out").read_text() == "mine"


def test_force_takes_an_empty_folder(
    source: Path, tmp_path: Path, expected: dict[str, str]
) -> None:
    """An empty folder, as `mkdir` or a mount leaves it, may be replaced."""
    (tmp_path / "out").mkdir()
    convert(source, tmp_path / "out", force=True)
    assert fingerprint(tmp_path / "out") == expected


@pytest.mark.parametrize("suffix", [".old", ".partial"])
@pytest.mark.parametrize("kind", ["folder", "file"])
def test_siblings_of_the_same_stem_are_not_ours_to_delete(
    source: Path, other: Path, tmp_path: Path, suffix: str, kind: str
) -> None:
    """A user's own NAME.old or NAME.partial survives a conversion, replaced or refused."""
    convert(other, tmp_path / "out")
    mine = tmp_path / f"out{suffix}"
    if kind == "folder":
        mine.mkdir()
        mine /= "notes.txt"
    mine.write_text("mine")
    try:
        convert(source, tmp_path / "out", force=True)
    except GptOssError as error:
        assert mine.name in str(error) or suffix in str(error)  # noqa: PT017 either outcome will do
    assert mine.read_text() == "mine"


def test_a_destination_made_meanwhile_is_kept(source: Path, tmp_path: Path) -> None:
    """What appears at the destination during the run is not replaced without --force."""
    destination = tmp_path / "out"

    def somebody_else_writes() -> None:
        destination.mkdir()
        (destination / "notes.txt").write_text("mine")

    with pytest.raises(GptOssError, match=str(destination)):
        convert(source, destination, on_progress=at_call(5, somebody_else_writes))
    assert (destination / "notes.txt").read_text() == "mine"


def test_force_through_a_link_replaces_what_it_points_to(
    source: Path, other: Path, tmp_path: Path, expected: dict[str, str]
) -> None:
    """A destination that is a link to a checkpoint: replaced or refused, but no traceback."""
    convert(other, tmp_path / "real")
    (tmp_path / "out").symlink_to(tmp_path / "real")
    try:
        convert(source, tmp_path / "out", force=True)
    except UsageError:
        assert (tmp_path / "real" / "config.json").is_file()
    else:
        assert fingerprint(tmp_path / "out") == expected
    assert not (tmp_path / "out.old").is_symlink()


def test_a_dangling_link_is_refused_beforehand(source: Path, tmp_path: Path) -> None:
    """A link to nowhere as destination is refused before the work, not after it."""
    (tmp_path / "out").symlink_to(tmp_path / "unplugged" / "disk")
    done: list[int] = []
    with pytest.raises(GptOssError, match="out"):
        convert(source, tmp_path / "out", on_progress=lambda n, _: done.append(n))
    assert not done


def test_force_on_the_current_folder(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`.` as destination is the folder that it is, and may be replaced when it is empty."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    convert(source, Path(), force=True)
    assert (tmp_path / "here" / "config.json").is_file()
    assert names_in(tmp_path) == ["here"]


def test_two_conversions_into_one_destination(
    source: Path, other: Path, tmp_path: Path, expected: dict[str, str]
) -> None:
    """The second is refused while the first is at work, and the first is not disturbed."""
    refused: list[str] = []

    def second() -> None:
        with pytest.raises(UsageError) as caught:
            convert(other, tmp_path / "out")
        refused.append(str(caught.value))

    convert(source, tmp_path / "out", on_progress=at_call(4, second))
    assert refused == [f"another conversion is writing {tmp_path / 'out'}"]
    assert fingerprint(tmp_path / "out") == expected
    assert names_in(tmp_path) == ["out"]


def test_a_lock_that_was_released_while_waiting_is_not_held_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder that its holder renamed between open and flock locks nothing: one winner."""
    destination = tmp_path / "out"
    real, depth = writer.fcntl.flock, iter(range(10))

    def flock(file: int, operation: int) -> None:
        if next(depth) == 0:  # between open and flock, another run comes and goes
            with writer.new_directory(destination, force=False, needed=0):
                pass
            shutil.rmtree(destination)
        real(file, operation)

    monkeypatch.setattr(writer.fcntl, "flock", flock)
    with (
        writer.new_directory(destination, force=False, needed=0),
        pytest.raises(UsageError, match="another conversion"),
        writer.new_directory(destination, force=False, needed=0),
    ):
        pass


def test_shard_writer_splits_and_aligns(tmp_path: Path) -> None:
    """Shards fill up in order, a larger tensor has its own, and every tensor is aligned."""
    tensors = {
        "a": TensorSpec("U8", (3,)),
        "b": TensorSpec("U32", (5,)),
        "large": TensorSpec("BF16", (100,)),
        "c": TensorSpec("BF16", (7,)),
    }
    with ShardWriter(tmp_path, tensors, 50) as shards:
        for name, spec in tensors.items():
            shards.write(name, 0, bytes([len(name)]) * spec.nbytes)
    held = {path.name: reader.read_header(path) for path in sorted(tmp_path.glob("*.safetensors"))}
    assert [list(header) for header in held.values()] == [["b", "a"], ["large"], ["c"]]
    assert min(held) == "model-00001-of-00003.safetensors"
    for header in held.values():
        for name, stored in header.items():
            assert stored.spec == tensors[name]
            assert stored.offset % {"U8": 1, "BF16": 2, "U32": 4}[stored.spec.dtype] == 0
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert index["weight_map"] == {n: name for name, header in held.items() for n in header}
