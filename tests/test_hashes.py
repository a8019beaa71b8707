"""The hashes of a conversion: those of what was written, and damage that only they show."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from checkpoints import json_edit

from gptoss_mlx.convert import Dense, convert, reader
from gptoss_mlx.convert.hashes import check_hashes, has_hashes
from gptoss_mlx.convert.reader import find_files, read_header
from gptoss_mlx.errors import CorruptFileError

pytestmark = pytest.mark.usefixtures("no_tokenizer")


@pytest.mark.parametrize("dense", ["bf16", "q8", "q4"])
@pytest.mark.parametrize("chunk_bytes", [1, 5000, 4 << 20])
def test_they_are_those_of_the_tensors(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dense: Dense, chunk_bytes: int
) -> None:
    """Whatever the chunks, the record holds the sha256 of each tensor's bytes on disk."""
    monkeypatch.setattr(reader, "CHUNK_BYTES", chunk_bytes)
    folder = tmp_path / "out"
    convert(source, folder, dense=dense, shard_bytes=100_000)
    found: dict[str, str] = {}
    for path in find_files(folder):
        contents = path.read_bytes()
        for name, at in read_header(path).items():
            data = contents[at.offset : at.offset + at.spec.nbytes]
            found[name] = hashlib.sha256(data).hexdigest()
    assert json.loads((folder / "conversion.json").read_text())["tensors"] == found
    assert has_hashes(folder)
    check_hashes(folder)


def test_one_bit(source: Path, tmp_path: Path) -> None:
    """A single bit in the middle is found, and its tensor named; all was read before that."""
    folder = tmp_path / "out"
    convert(source, folder)
    (path,) = find_files(folder)
    name, at = list(read_header(path).items())[-1]
    contents = bytearray(path.read_bytes())
    contents[at.offset + at.spec.nbytes // 2] ^= 1
    path.write_bytes(contents)
    seen: list[tuple[int, int]] = []
    with pytest.raises(CorruptFileError, match=f"{name} is not what was written there"):
        check_hashes(folder, lambda done, total: seen.append((done, total)))
    assert seen[-1][0] == seen[-1][1]


@pytest.mark.parametrize("tensors", [None, {}, [1]])
def test_conversions_without(source: Path, tmp_path: Path, tensors: object) -> None:
    """Those of older versions have none, and ready-made ones have no record at all."""
    folder = tmp_path / "out"
    convert(source, folder)
    json_edit("conversion.json", tensors=tensors)(folder)
    assert not has_hashes(folder)
    (folder / "conversion.json").unlink()
    assert not has_hashes(folder)
