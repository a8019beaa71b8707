"""verify(): passes what convert() wrote, and finds whatever was changed since."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from checkpoints import TINY, Damage, edit_header, fingerprint, json_edit, read_bits, removal

from gptoss_mlx.convert import Dense, convert, reader, verify
from gptoss_mlx.convert.synthetic import write_random_checkpoint
from gptoss_mlx.errors import CheckpointError, GptOssError, MissingFileError, VerifyError

pytestmark = pytest.mark.usefixtures("no_tokenizer")

LAYER = "model.layers.1."


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small checkpoint in several files."""
    folder = tmp_path_factory.mktemp("source") / "checkpoint"
    write_random_checkpoint(folder, TINY, shard_bytes=180_000)
    return folder


@pytest.fixture
def converted(source: Path, tmp_path: Path) -> Path:
    """Its conversion with the default options, in several files, free to be damaged."""
    convert(source, tmp_path / "converted", shard_bytes=150_000)
    return tmp_path / "converted"


@pytest.mark.parametrize("dense", ["bf16", "q8", "q4"])
@pytest.mark.parametrize("layout", ["openai", "huggingface"])
def test_a_conversion_passes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dense: Dense, layout: Any
) -> None:
    """What was just converted verifies, however it is chunked, and nothing is touched."""
    write_random_checkpoint(tmp_path / "source", TINY, layout=layout, shard_bytes=200_000)
    converted = convert(tmp_path / "source", tmp_path / "out", dense=dense, shard_bytes=100_000)
    before = fingerprint(tmp_path)
    monkeypatch.setattr(reader, "CHUNK_BYTES", 3000)
    report = verify(tmp_path / "out", tmp_path / "source")
    assert replace(report, seconds=0) == replace(converted, seconds=0)
    assert fingerprint(tmp_path) == before


@pytest.mark.parametrize("position", [0, -1])
@pytest.mark.parametrize(
    "name",
    [
        f"{LAYER}mlp.experts.gate_proj.weight",
        f"{LAYER}mlp.experts.up_proj.scales",
        f"{LAYER}mlp.experts.down_proj.bias",
        f"{LAYER}mlp.router.weight",
        f"{LAYER}self_attn.v_proj.weight",
        f"{LAYER}self_attn.v_proj.scales",
        f"{LAYER}self_attn.o_proj.biases",
        f"{LAYER}self_attn.sinks",
        "model.norm.weight",
        "model.embed_tokens.weight",
        "lm_head.scales",
    ],
)
def test_one_flipped_bit_is_found(source: Path, converted: Path, name: str, position: int) -> None:
    """The first or the last byte of a tensor, one bit off: the file and the tensor are named."""
    path, start, nbytes = _place(converted, name)
    contents = bytearray(path.read_bytes())
    contents[start + position % nbytes] ^= 0x10
    path.write_bytes(contents)
    with pytest.raises(VerifyError, match=rf"{path}: {name} differs.*convert again"):
        verify(converted, source)


def _forget_sinks(folder: Path) -> None:
    name = f"{LAYER}self_attn.sinks"
    path, _, _ = _place(folder, name)
    edit_header(path, lambda header: header.update({"stranger": header.pop(name)}))


def _reshape_sinks(folder: Path) -> None:
    name = f"{LAYER}self_attn.sinks"
    path, _, _ = _place(folder, name)
    edit_header(path, lambda header: header[name].update(shape=[2, 3]))


def _append_a_tensor(folder: Path) -> None:
    mx.save_safetensors(str(folder / "more.safetensors"), {"zz.weight": mx.zeros(4)})


def _truncate_a_shard(folder: Path) -> None:
    path = max(folder.glob("*.safetensors"))
    path.write_bytes(path.read_bytes()[:-1])


def _claim_other_bits(folder: Path) -> None:
    record = json.loads((folder / "conversion.json").read_text())
    record["options"]["dense"] = "q4"
    (folder / "conversion.json").write_text(json.dumps(record))


def _forget_a_shard(folder: Path) -> None:
    max(folder.glob("*.safetensors")).unlink()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        pytest.param(_forget_sinks, r"1\.self_attn\.sinks|stranger", id="tensor-renamed"),
        pytest.param(_reshape_sinks, r"1\.self_attn\.sinks", id="tensor-reshaped"),
        pytest.param(_append_a_tensor, r"zz\.weight", id="tensor-added"),
        pytest.param(_forget_a_shard, "missing", id="shard-missing"),
        pytest.param(_truncate_a_shard, "truncated", id="shard-truncated"),
        pytest.param(_claim_other_bits, "missing, unexpected or misshapen", id="another-dense"),
        pytest.param(json_edit("config.json", rope_theta=10_000.0), r"config\.json", id="config"),
        pytest.param(json_edit("config.json", quantization=None), r"config\.json", id="config-q"),
        pytest.param(removal("config.json"), r"config\.json", id="config-missing"),
        pytest.param(
            removal("conversion.json"),
            "only conversions by gptoss-mlx can be verified",
            id="record-missing",
        ),
        pytest.param(
            json_edit("conversion.json", options=[]), r"conversion\.json: damaged", id="record"
        ),
        pytest.param(
            json_edit("generation_config.json", eos_token_id=[1]),
            r"generation_config\.json",
            id="generation-config",
        ),
        pytest.param(
            json_edit("model.safetensors.index.json", weight_map={}),
            r"model\.safetensors\.index\.json",
            id="index",
        ),
    ],
)
def test_other_damage_is_found(source: Path, converted: Path, damage: Damage, message: str) -> None:
    """A tensor, a file or an entry that is not as convert wrote it is named."""
    damage(converted)
    with pytest.raises((VerifyError, CheckpointError), match=message):
        verify(converted, source)


@pytest.mark.parametrize(
    ("seed", "config"),
    [
        pytest.param(1, TINY, id="other-weights"),
        pytest.param(0, replace(TINY, num_experts=8), id="other-shapes"),
        pytest.param(0, replace(TINY, num_hidden_layers=1), id="fewer-layers"),
        pytest.param(0, replace(TINY, rope_theta=10_000.0), id="other-config"),
    ],
)
def test_another_source_is_found(converted: Path, tmp_path: Path, seed: int, config: Any) -> None:
    """A source other than the one that was converted does not verify."""
    write_random_checkpoint(tmp_path / "other", config, seed=seed, shard_bytes=180_000)
    with pytest.raises(VerifyError):
        verify(converted, tmp_path / "other")


def test_the_same_tensors_in_other_files_are_another_source(
    source: Path, converted: Path, tmp_path: Path
) -> None:
    """The record names files and their hashes: equal tensors cut into other files differ."""
    write_random_checkpoint(tmp_path / "other", TINY)
    ours, theirs = read_bits(source), read_bits(tmp_path / "other")
    assert all(ours[name].tobytes() == theirs[name].tobytes() for name in theirs)
    with pytest.raises(VerifyError, match=f"{tmp_path / 'other'}: not the files"):
        verify(converted, tmp_path / "other")


def test_a_source_that_is_gone_is_named(source: Path, converted: Path, tmp_path: Path) -> None:
    """Without its source a conversion cannot be verified, and the message says which."""
    with pytest.raises(MissingFileError, match=str(tmp_path / "gone")):
        verify(converted, tmp_path / "gone")
    shutil.copytree(source, tmp_path / "part")
    max((tmp_path / "part").glob("*.safetensors")).unlink()
    with pytest.raises(GptOssError, match="is missing"):
        verify(converted, tmp_path / "part")


def _place(folder: Path, name: str) -> tuple[Path, int, int]:
    """File, offset in it and size of a tensor."""
    for path in folder.glob("*.safetensors"):
        if stored := reader.read_header(path).get(name):
            return path, stored.offset, stored.spec.nbytes
    raise AssertionError(f"no {name} in {folder}")
