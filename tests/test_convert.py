"""Every tensor of a conversion against a naive computation from the source, bit for bit."""

from __future__ import annotations

import hashlib
import json
from importlib.metadata import version
from pathlib import Path
from typing import Any
from unittest.mock import patch

import mlx.core as mx
import numpy as np
import pytest
from checkpoints import TINY, fingerprint, read_bits
from numpy.typing import NDArray

from gptoss_mlx.config import ModelConfig
from gptoss_mlx.convert import Dense, convert, reader
from gptoss_mlx.convert.names import Layout
from gptoss_mlx.convert.reader import read_header
from gptoss_mlx.convert.synthetic import write_random_checkpoint
from gptoss_mlx.errors import UsageError

pytestmark = pytest.mark.usefixtures("no_tokenizer")

Arrays = dict[str, NDArray[Any]]
LAYOUTS: tuple[Layout, ...] = ("openai", "huggingface")
BITS = {"q8": 8, "q4": 4}
ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
QUANTIZED = (*ATTENTION, "embed_tokens", "lm_head")


@pytest.fixture(scope="module", params=[(layout, n) for layout in LAYOUTS for n in (1, 5)])
def source(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint in either layout, in one file or in several."""
    layout, files = request.param
    folder = tmp_path_factory.mktemp("source") / layout
    shard_bytes = 1 << 40 if files == 1 else 150_000
    write_random_checkpoint(folder, TINY, layout=layout, seed=files, shard_bytes=shard_bytes)
    assert (len(list(folder.glob("*.safetensors"))) > 1) == (files > 1)
    return folder


@pytest.mark.parametrize("dense", ["bf16", "q8", "q4"])
@pytest.mark.parametrize(
    ("chunk_bytes", "shard_bytes"),
    [
        pytest.param(1, 1 << 40, id="two-rows-a-chunk"),
        pytest.param(10 * 256, 60_000, id="chunks-across-experts"),
        pytest.param(reader.CHUNK_BYTES, 200_000, id="whole-tensors"),
    ],
)
def test_every_tensor_equals_the_naive_computation(
    source: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    dense: Dense,
    chunk_bytes: int,
    shard_bytes: int,
) -> None:
    """Wherever chunks and shards end, names, dtypes and bits are those of whole matrices."""
    monkeypatch.setattr(reader, "CHUNK_BYTES", chunk_bytes)
    report = convert(source, tmp_path / "out", dense=dense, shard_bytes=shard_bytes)
    expected = _quantized(_mlx_tensors(read_bits(source)), dense)
    found = read_bits(tmp_path / "out")
    assert found.keys() == expected.keys()
    assert report.tensors == len(expected)
    for name, array in expected.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape), name
        assert found[name].tobytes() == array.tobytes(), name


def test_quantized_matrices_stay_near_their_source(tmp_path: Path) -> None:
    """q8 and q4 are within a step or so of the bf16 numbers: the right rows, not any rows."""
    write_random_checkpoint(tmp_path / "source", TINY)
    name = "model.layers.1.self_attn.k_proj."
    truth = _floats(_mlx_tensors(read_bits(tmp_path / "source"))[name + "weight"])
    for dense in ("q8", "q4"):
        convert(tmp_path / "source", tmp_path / dense, dense=dense)
        bits = read_bits(tmp_path / dense)
        scales = _floats(bits[name + "scales"]).repeat(64, axis=1)
        biases = _floats(bits[name + "biases"]).repeat(64, axis=1)
        codes = _unpacked(bits[name + "weight"], BITS[dense])
        error = np.abs(codes * scales + biases - truth)
        assert (error < 1.5 * np.abs(scales)).all()


def test_experts_are_carried_over_bit_for_bit(source: Path, tmp_path: Path) -> None:
    """Interleaved again, the expert bytes are the source's own, whatever --dense."""
    convert(source, tmp_path / "out", dense="q4")
    theirs, ours = read_bits(source), read_bits(tmp_path / "out")
    for n in range(TINY.num_hidden_layers):
        blocks, scales, bias = _expert_names(theirs, n)
        stem = f"model.layers.{n}.mlp.experts."
        for name, kind in ((blocks, "weight"), (scales, "scales"), (bias, "bias")):
            gate, up = ours[f"{stem}gate_proj.{kind}"], ours[f"{stem}up_proj.{kind}"]
            assert np.stack([gate, up], axis=2).tobytes() == theirs[name].tobytes()


@pytest.mark.parametrize("dense", ["bf16", "q8", "q4"])
def test_config_and_record(source: Path, tmp_path: Path, dense: Dense) -> None:
    """config.json says how each layer is stored; conversion.json, where it came from."""
    convert(source, tmp_path / "out", dense=dense)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert ModelConfig.from_dict(config) == TINY
    layers = {
        f"model.layers.{n}.self_attn.{name}"
        for n in range(TINY.num_hidden_layers)
        for name in ATTENTION
    }
    affine = {"group_size": 64, "bits": BITS.get(dense), "mode": "affine"}
    entries = dict.fromkeys({*layers, "model.embed_tokens", "lm_head"}, affine)
    expected = {"group_size": 32, "bits": 4, "mode": "mxfp4"} | (entries if dense in BITS else {})
    assert config["quantization"] == config["quantization_config"] == expected

    record = json.loads((tmp_path / "out" / "conversion.json").read_text())
    assert (record["tool"], record["version"]) == ("gptoss-mlx", version("gptoss-mlx"))
    assert record["options"] == {"dense": dense}
    assert record["source"]["files"] == {
        path.name: {
            "bytes": path.stat().st_size,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        }
        for path in source.glob("*.safetensors")
    }
    generation = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    assert generation["eos_token_id"] == [200002, 199999, 200012]


def test_the_index_and_the_shards_agree(source: Path, tmp_path: Path) -> None:
    """No shard exceeds its limit, and the index sends every tensor to the file that holds it."""
    convert(source, tmp_path / "out", shard_bytes=100_000)
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    held: dict[str, str] = {}
    total = 0
    for path in (tmp_path / "out").glob("*.safetensors"):
        sizes = [stored.spec.nbytes for stored in read_header(path).values()]
        held |= dict.fromkeys(read_header(path), path.name)
        size = sum(sizes)
        assert size <= 100_000 or len(sizes) == 1
        total += size
    assert index == {"metadata": {"total_size": total}, "weight_map": held}


def test_conversions_are_repeatable(source: Path, tmp_path: Path) -> None:
    """The same source and options give the same bytes in every file, however they were chunked."""
    convert(source, tmp_path / "a")
    with patch.object(reader, "CHUNK_BYTES", 3000):
        convert(source, tmp_path / "b")
    assert fingerprint(tmp_path / "a") == fingerprint(tmp_path / "b")


def test_progress_ends_at_the_total(source: Path, tmp_path: Path) -> None:
    """Progress only grows, and ends where it said it would."""
    calls: list[tuple[int, int]] = []
    convert(source, tmp_path / "out", on_progress=lambda done, total: calls.append((done, total)))
    done = [call[0] for call in calls]
    assert done == sorted(set(done))
    assert {total for _, total in calls} == {done[-1]}


def test_zero_based_shard_numbers_are_complete(tmp_path: Path) -> None:
    """openai/gpt-oss-20b counts from model-00000-of-00002 to -00002: three files, all used."""
    write_random_checkpoint(tmp_path / "a", TINY, layout="huggingface", shard_bytes=290_000)
    shards = sorted((tmp_path / "a").glob("*.safetensors"))
    index = tmp_path / "a" / "model.safetensors.index.json"
    text = index.read_text()
    for i, path in enumerate(shards):
        name = f"model-{i:05}-of-{len(shards) - 1:05}.safetensors"
        text = text.replace(path.name, name + "!")
        path.rename(path.with_name(name + "!"))
    for path in (tmp_path / "a").glob("*!"):
        path.rename(path.with_name(path.name[:-1]))
    index.write_text(text.replace("!", ""))
    convert(tmp_path / "a", tmp_path / "out", dense="bf16")
    expected = _mlx_tensors(read_bits(tmp_path / "a"))
    assert read_bits(tmp_path / "out").keys() == expected.keys()


def test_widths_that_cannot_be_quantized_are_refused(tmp_path: Path) -> None:
    """A model 96 wide has no groups of 64: refused with both widths, and bf16 works."""
    narrow = ModelConfig(**{**TINY.to_openai_dict(), "hidden_size": 96})
    write_random_checkpoint(tmp_path / "source", narrow)
    with pytest.raises(UsageError, match=r"multiples of 64.*96 and 192.*--dense bf16"):
        convert(tmp_path / "source", tmp_path / "out", dense="q8")
    assert not (tmp_path / "out").exists()
    convert(tmp_path / "source", tmp_path / "out", dense="bf16")


def _mlx_tensors(source: Arrays) -> Arrays:
    """What MLX's layout holds, unquantized, from either source layout, written out by hand."""
    openai = "embedding.weight" in source
    named = {
        "model.embed_tokens.weight": "embedding.weight",
        "model.norm.weight": "norm.scale",
        "lm_head.weight": "unembedding.weight",
    }
    out = {ours: source[theirs if openai else ours] for ours, theirs in named.items()}
    for n in range(TINY.num_hidden_layers):
        layer = f"model.layers.{n}."
        local = _openai_layer(source, f"block.{n}.") if openai else _hf_layer(source, layer)
        out |= {layer + name: array for name, array in local.items()}
    return out


def _openai_layer(source: Arrays, block: str) -> Arrays:
    Q, K = 192, 64  # rows of q; of k and of v
    out = {
        "input_layernorm.weight": source[block + "attn.norm.scale"],
        "post_attention_layernorm.weight": source[block + "mlp.norm.scale"],
        "self_attn.sinks": source[block + "attn.sinks"],
        "self_attn.o_proj.weight": source[block + "attn.out.weight"],
        "self_attn.o_proj.bias": source[block + "attn.out.bias"],
        "mlp.router.weight": source[block + "mlp.gate.weight"],
        "mlp.router.bias": source[block + "mlp.gate.bias"],
    }
    for kind in ("weight", "bias"):
        qkv = source[f"{block}attn.qkv.{kind}"]
        out[f"self_attn.q_proj.{kind}"] = qkv[:Q]
        out[f"self_attn.k_proj.{kind}"] = qkv[Q : Q + K]
        out[f"self_attn.v_proj.{kind}"] = qkv[Q + K :]
    mlp1 = [source[f"{block}mlp.mlp1_{x}"] for x in ("weight.blocks", "weight.scales", "bias")]
    mlp2 = [source[f"{block}mlp.mlp2_{x}"] for x in ("weight.blocks", "weight.scales", "bias")]
    return out | _experts(mlp1, mlp2)


def _hf_layer(source: Arrays, layer: str) -> Arrays:
    same = (
        "input_layernorm.weight",
        "post_attention_layernorm.weight",
        "self_attn.sinks",
        "mlp.router.weight",
        "mlp.router.bias",
        *(f"self_attn.{name}.{kind}" for name in ATTENTION for kind in ("weight", "bias")),
    )
    experts = layer + "mlp.experts."
    gate_up = [source[f"{experts}gate_up_proj_{x}"] for x in ("blocks", "scales", "bias")]
    down = [source[f"{experts}down_proj_{x}"] for x in ("blocks", "scales", "bias")]
    return {name: source[layer + name] for name in same} | _experts(gate_up, down)


def _experts(gate_up: list[NDArray[Any]], down: list[NDArray[Any]]) -> Arrays:
    """(blocks, scales, bias) of both halves: gate is every even row, up every odd one."""
    out: Arrays = {}
    halves = {
        "gate_proj": [array[:, 0::2] for array in gate_up],
        "up_proj": [array[:, 1::2] for array in gate_up],
        "down_proj": down,
    }
    for name, (blocks, scales, bias) in halves.items():
        E, rows = blocks.shape[:2]
        packed = np.ascontiguousarray(blocks).reshape(E, rows, -1).view("<u4")
        out[f"mlp.experts.{name}.weight"] = packed
        out[f"mlp.experts.{name}.scales"] = scales
        out[f"mlp.experts.{name}.bias"] = bias
    return out


def _quantized(tensors: Arrays, dense: Dense) -> Arrays:
    """Attention, embedding and lm_head through mx.quantize, each matrix whole."""
    if dense == "bf16":
        return tensors
    out: Arrays = {}
    for name, array in tensors.items():
        stem = name.removesuffix(".weight")
        if name == stem or not stem.endswith(QUANTIZED):
            out[name] = array
        else:
            whole = mx.array(np.ascontiguousarray(array)).view(mx.bfloat16)
            packed = mx.quantize(whole, group_size=64, bits=BITS[dense], stream=mx.cpu)
            for kind, part in zip(("weight", "scales", "biases"), packed, strict=True):
                out[f"{stem}.{kind}"] = np.array(part if kind == "weight" else part.view(mx.uint16))
    return out


def _expert_names(source: Arrays, n: int) -> tuple[str, str, str]:
    if "embedding.weight" in source:
        stem = f"block.{n}.mlp.mlp1_"
        return stem + "weight.blocks", stem + "weight.scales", stem + "bias"
    stem = f"model.layers.{n}.mlp.experts.gate_up_proj_"
    return stem + "blocks", stem + "scales", stem + "bias"


def _floats(bits: NDArray[np.uint16]) -> NDArray[np.float32]:
    return (bits.astype(np.uint32) << 16).view(np.float32)


def _unpacked(words: NDArray[np.uint32], bits: int) -> NDArray[np.uint32]:
    """(rows, n) words -> (rows, n * 32 / bits) codes, low bits first."""
    shifts = np.arange(0, 32, bits, dtype=np.uint32)
    return (words[..., None] >> shifts & (2**bits - 1)).reshape(len(words), -1)
