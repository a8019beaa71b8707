"""Sources that cannot be converted: each has its own clear error, and nothing is written."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from checkpoints import (
    ONE_FILE,
    SHARD,
    TINY,
    Damage,
    cut,
    edit_header,
    fingerprint,
    json_edit,
    removal,
    replacement,
)

from gptoss_mlx.convert import convert
from gptoss_mlx.errors import (
    CheckpointError,
    ConfigError,
    CorruptFileError,
    GptOssError,
    MissingFileError,
    TensorError,
    UsageError,
)

pytestmark = pytest.mark.usefixtures("no_tokenizer")

SINKS = "block.0.attn.sinks"


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
