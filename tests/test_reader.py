"""Sources that cannot be converted: each has its own clear error, and nothing is written."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import mlx.core as mx
import pytest
from checkpoints import (
    TINY,
    Damage,
    cut,
    edit_config,
    edit_header,
    fingerprint,
    json_edit,
    removal,
    replacement,
)

from gptoss_mlx.convert import conversion, convert
from gptoss_mlx.convert.reader import open_source, read_header
from gptoss_mlx.convert.synthetic import write_random_checkpoint
from gptoss_mlx.errors import (
    CheckpointError,
    ConfigError,
    CorruptFileError,
    GptOssError,
    MissingFileError,
    TensorError,
    UsageError,
)

SHARD = "model-00002-of-00004.safetensors"
ONE_FILE = "model-00001-of-00001.safetensors"
SINKS = "block.0.attn.sinks"


@pytest.fixture(autouse=True)
def no_tokenizer() -> Iterator[None]:
    """Writing a tokenizer takes seconds and has tests of its own."""
    with patch.object(conversion, "add_tokenizer"):
        yield


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Undamaged checkpoints by name."""
    folder = tmp_path_factory.mktemp("good")
    write_random_checkpoint(folder / "one", TINY)
    write_random_checkpoint(folder / "several", TINY, shard_bytes=180_000)
    write_random_checkpoint(folder / "hf", TINY, layout="huggingface")
    assert (folder / "several" / SHARD).is_file()
    assert (folder / "one" / ONE_FILE).is_file()
    return {path.name: path for path in folder.iterdir()}


def _empty_folder(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


def _move_into_original(folder: Path) -> None:
    files = list(folder.iterdir())
    (folder / "original").mkdir()
    for file in files:
        file.rename(folder / "original" / file.name)


def _forget_a_shard_and_the_index(folder: Path) -> None:
    (folder / SHARD).unlink()
    (folder / "model.safetensors.index.json").unlink()


def _other_tensors(folder: Path) -> None:
    (folder / ONE_FILE).unlink()
    (folder / "model.safetensors.index.json").unlink()
    mx.save_safetensors(str(folder / "model.safetensors"), {"wte.weight": mx.zeros((4, 4))})


def _header(edit: Callable[[dict[str, Any]], None]) -> Damage:
    return lambda folder: edit_header(folder / ONE_FILE, edit)


def _lying_length(folder: Path) -> None:
    contents = (folder / ONE_FILE).read_bytes()
    (folder / ONE_FILE).write_bytes(struct.pack("<Q", 1 << 40) + contents[8:])


def _shift_offsets(header: dict[str, Any]) -> None:
    begin, end = header[SINKS]["data_offsets"]
    header[SINKS]["data_offsets"] = [begin, end + 64]


def _enlarge_shape(header: dict[str, Any]) -> None:
    header[SINKS]["shape"] = [600]


def _past_the_end(header: dict[str, Any]) -> None:
    last = max(header, key=lambda name: header[name].get("data_offsets", [0])[0])
    begin, end = header[last]["data_offsets"]
    header[last]["data_offsets"] = [begin, end * 2]
    header[last]["shape"] = [(end * 2 - begin) // 2]


def _as_float16(header: dict[str, Any]) -> None:
    header[SINKS]["dtype"] = "F16"


def _rename_sinks(header: dict[str, Any]) -> None:
    header["block.0.attn.sink"] = header.pop(SINKS)


def _as_matrix(header: dict[str, Any]) -> None:
    header[SINKS]["shape"] = [2, 3]


def _convert_first(folder: Path) -> None:
    convert(folder, folder.with_name("converted"))
    shutil.rmtree(folder)
    folder.with_name("converted").rename(folder)


BAD_SOURCES = [
    pytest.param(
        "one", shutil.rmtree, MissingFileError, ["{source}", "no such folder"], id="no-folder"
    ),
    pytest.param(
        "one", _empty_folder, MissingFileError, ["{source}", "not a checkpoint"], id="empty-folder"
    ),
    pytest.param(
        "one",
        _move_into_original,
        MissingFileError,
        ["{source}", "did you mean {source}/original?"],
        id="tensors-in-original",
    ),
    pytest.param(
        "one",
        _other_tensors,
        CheckpointError,
        ["{source}", "not a gpt-oss checkpoint", "openai/gpt-oss-20b"],
        id="another-model",
    ),
    pytest.param(
        "one",
        _convert_first,
        UsageError,
        ["{source}", "already an MLX conversion", "--model {source}"],
        id="already-converted",
    ),
    pytest.param(
        "one",
        removal("config.json"),
        MissingFileError,
        ["{source}/config.json", "no such file"],
        id="no-config",
    ),
    pytest.param(
        "one",
        replacement("config.json", b"{"),
        ConfigError,
        ["{source}/config.json", "not valid JSON"],
        id="config-no-json",
    ),
    pytest.param(
        "one",
        json_edit("config.json", head_dim=None),
        ConfigError,
        ["config.json", "'head_dim' is missing"],
        id="config-lacks-a-key",
    ),
    pytest.param(
        "one",
        json_edit("config.json", num_expert=4),
        ConfigError,
        ["num_expert", "did you mean 'num_experts'", "--allow-unknown-config"],
        id="config-unknown-key",
    ),
    pytest.param(
        "several",
        removal(SHARD),
        MissingFileError,
        [SHARD, "is missing", "download it again"],
        id="shard-missing-by-the-index",
    ),
    pytest.param(
        "several",
        _forget_a_shard_and_the_index,
        MissingFileError,
        [SHARD, "is missing", "download it again"],
        id="shard-missing-by-its-number",
    ),
    pytest.param(
        "several",
        cut(SHARD, -1),
        CorruptFileError,
        [SHARD, "truncated", "download it again"],
        id="last-byte-missing",
    ),
    pytest.param(
        "one",
        cut(ONE_FILE, 100),
        CorruptFileError,
        [ONE_FILE, "truncated", "download it again"],
        id="cut-in-the-header",
    ),
    pytest.param(
        "one",
        cut(ONE_FILE, 0),
        CorruptFileError,
        [ONE_FILE, "truncated", "download it again"],
        id="empty-file",
    ),
    pytest.param(
        "one",
        replacement(ONE_FILE, b"<html>404 not found</html>" * 9),
        CorruptFileError,
        [ONE_FILE, "damaged", "download it again"],
        id="an-error-page",
    ),
    pytest.param(
        "one",
        _lying_length,
        CorruptFileError,
        [ONE_FILE, "damaged", "download it again"],
        id="header-lies-about-its-length",
    ),
    pytest.param(
        "one",
        _header(_shift_offsets),
        CorruptFileError,
        [ONE_FILE, "damaged", "download it again"],
        id="header-overlaps",
    ),
    pytest.param(
        "one",
        _header(_enlarge_shape),
        CorruptFileError,
        [ONE_FILE, "damaged", "download it again"],
        id="header-lies-about-a-shape",
    ),
    pytest.param(
        "one",
        _header(_past_the_end),
        CorruptFileError,
        [ONE_FILE, "damaged", "download it again"],
        id="header-goes-past-the-end",
    ),
    pytest.param(
        "one",
        _header(_as_matrix),
        TensorError,
        [SINKS, "shape [2, 3], expected [6]"],
        id="wrong-shape",
    ),
    pytest.param(
        "one",
        _header(_as_float16),
        TensorError,
        [SINKS, "dtype F16, expected BF16", "only the published MXFP4 checkpoints"],
        id="wrong-dtype",
    ),
    pytest.param(
        "one",
        _header(_rename_sinks),
        TensorError,
        [SINKS, "is missing", "config.json"],
        id="tensor-missing",
    ),
    pytest.param(
        "one",
        json_edit("config.json", num_hidden_layers=3),
        TensorError,
        ["block.2.", "is missing (and 14 more)", "config.json"],
        id="config-of-a-deeper-model",
    ),
    pytest.param(
        "one",
        json_edit("config.json", num_hidden_layers=1),
        TensorError,
        ["block.1.", "does not belong there (and 14 more)", "config.json"],
        id="config-of-a-shallower-model",
    ),
    pytest.param(
        "one",
        json_edit("config.json", num_experts=8),
        TensorError,
        ["block.0.mlp", "has shape [4, ", "expected [8"],
        id="config-of-a-wider-model",
    ),
    pytest.param(
        "hf",
        replacement("config.json", json.dumps(TINY.to_openai_dict()).encode()),
        CheckpointError,
        ["{source}", "different layouts", "same folder"],
        id="config-of-the-other-layout",
    ),
]


@pytest.mark.parametrize(("kind", "damage", "error", "phrases"), BAD_SOURCES)
def test_bad_sources_are_refused_before_anything_is_written(
    good: dict[str, Path],
    tmp_path: Path,
    kind: str,
    damage: Damage,
    error: type[GptOssError],
    phrases: list[str],
) -> None:
    """One line that names the thing and the remedy; no output; the source as it was."""
    source, destination = tmp_path / "source", tmp_path / "place" / "out"
    shutil.copytree(good[kind], source)
    damage(source)
    before = fingerprint(tmp_path)
    with pytest.raises(error) as caught:
        convert(source, destination)
    message = str(caught.value)
    assert type(caught.value) is error
    assert "\n" not in message
    for phrase in phrases:
        assert phrase.format(source=source) in message
    assert not destination.parent.exists()
    assert fingerprint(tmp_path) == before


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
