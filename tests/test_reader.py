"""Reading checkpoints: layouts, headers, indexes, and files that are not what they should be."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from checkpoints import ONE_FILE, TINY, edit_config

from gptoss_mlx.convert import convert
from gptoss_mlx.convert.reader import open_source, read_header
from gptoss_mlx.errors import CheckpointError, CorruptFileError

pytestmark = pytest.mark.usefixtures("no_tokenizer")


@pytest.mark.parametrize("kind", ["one", "several", "hf"])
def test_layouts_are_recognised_by_content(good: dict[str, Path], kind: str) -> None:
    """The folder's name says nothing; names of tensors and keys of config.json do."""
    source = open_source(good[kind])
    assert source.layout == ("huggingface" if kind == "hf" else "openai")
    assert source.config == TINY
    assert source.nbytes == sum(p.stat().st_size for p in good[kind].glob("*.safetensors"))


def test_unknown_config_keys_may_be_allowed(good: dict[str, Path], tmp_path: Path) -> None:
    """allow_unknown_config converts what an unknown key would have stopped."""
    shutil.copytree(good["one"], tmp_path / "source")
    edit_config(tmp_path / "source", release="2031-01")
    convert(tmp_path / "source", tmp_path / "out", allow_unknown_config=True)
    record = json.loads((tmp_path / "out" / "conversion.json").read_text())
    assert record["source"]["config"]["release"] == "2031-01"


def test_headers_list_tensors_in_file_order(good: dict[str, Path]) -> None:
    """Offsets count from the start of the file, and tensors follow each other without gaps."""
    path = good["one"] / ONE_FILE
    stored = list(read_header(path).values())
    ends = [tensor.offset + tensor.spec.nbytes for tensor in stored]
    assert [tensor.offset for tensor in stored[1:]] == ends[:-1]
    assert ends[-1] == path.stat().st_size


def test_a_file_that_shrinks_while_it_is_read(good: dict[str, Path], tmp_path: Path) -> None:
    """A source cut short after it was checked is noticed, and leaves nothing behind."""
    source = tmp_path / "source"
    shutil.copytree(good["several"], source)
    last = max(source.glob("*.safetensors"))

    def shrink(*_: int) -> None:
        last.write_bytes(last.read_bytes()[:3000])

    with pytest.raises(CorruptFileError, match=rf"{last.name}.*download it again"):
        convert(source, tmp_path / "out", on_progress=shrink)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source"]


def test_hidden_companions_of_macos_are_not_shards(good: dict[str, Path], tmp_path: Path) -> None:
    """On exFAT disks macOS writes a `._x.safetensors` beside x.safetensors: not a shard."""
    source = tmp_path / "source"
    shutil.copytree(good["one"], source)
    (source / f"._{ONE_FILE}").write_bytes(b"\0\5\x16\7" + bytes(4000))
    assert open_source(source).tensors == open_source(good["one"]).tensors


def test_a_tensor_in_two_files_is_refused(good: dict[str, Path], tmp_path: Path) -> None:
    """Two files that hold the same tensors are two checkpoints in one folder: no silent choice."""
    source = tmp_path / "source"
    shutil.copytree(good["one"], source)
    shutil.copy(source / ONE_FILE, source / "copy of model.safetensors")
    with pytest.raises(CheckpointError, match=r"copy of model\.safetensors|in two files|twice"):
        open_source(source)


@pytest.mark.parametrize("contents", [b'{"weight_map": []}', b'{"weight_map": null}', b"{}", b"{"])
def test_a_damaged_index_is_an_error_of_its_own(
    good: dict[str, Path], tmp_path: Path, contents: bytes
) -> None:
    """An index without its map is reported, or ignored where nothing is missing."""
    source = tmp_path / "source"
    shutil.copytree(good["several"], source)
    (source / "model.safetensors.index.json").write_bytes(contents)
    try:
        tensors = open_source(source).tensors
    except CheckpointError as error:
        assert "model.safetensors.index.json" in str(error)  # noqa: PT017 either outcome will do
    else:
        assert tensors == open_source(good["several"]).tensors
