"""Checkpoint folders -> parameters: what convert writes, and conversions made by others."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast
from unittest.mock import patch

import mlx.core as mx
import numpy as np
import pytest
from checkpoints import (
    TINY,
    Damage,
    cut,
    edit_config,
    json_edit,
    read_bits,
    removal,
    replacement,
)
from numpy.typing import NDArray

from gptoss_mlx.convert import Dense, conversion, convert
from gptoss_mlx.convert.mxfp4 import decode
from gptoss_mlx.convert.names import Layout
from gptoss_mlx.convert.synthetic import write_random_checkpoint
from gptoss_mlx.errors import (
    ConfigError,
    CorruptFileError,
    GptOssError,
    MissingFileError,
    TensorError,
    UsageError,
)
from gptoss_mlx.kernels import embed
from gptoss_mlx.model import load_model
from gptoss_mlx.weights import RowsOnDisk, load_weights

SHARD = "model-00001-of-00001.safetensors"
IDS = mx.array([[5, 250, 17, 3, 99, 0]])
ROUTER = "model.layers.0.mlp.router"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A source in each layout, and conversions of it: `openai-q8` and so on."""
    folder = tmp_path_factory.mktemp("checkpoints")
    layouts: tuple[Layout, ...] = ("openai", "huggingface")
    widths: tuple[Dense, ...] = ("bf16", "q8", "q4")
    with patch.object(conversion, "add_tokenizer"):
        for layout in layouts:
            write_random_checkpoint(folder / layout, TINY, layout=layout)
            for dense in widths:
                convert(folder / layout, folder / f"{layout}-{dense}", dense=dense)
    return {path.name: path for path in folder.iterdir()}


@pytest.fixture
def copy(folders: dict[str, Path], tmp_path: Path) -> Path:
    """A q8 conversion that a test may damage."""
    return Path(shutil.copytree(folders["openai-q8"], tmp_path / "copy"))


def _logits(folder: Path) -> NDArray[np.float32]:
    return cast("NDArray[np.float32]", np.array(load_model(folder, mx.float32)(IDS)))


def _difference(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    return float(np.abs(a - b).mean())


@pytest.mark.parametrize("layout", ["openai", "huggingface"])
def test_every_dense_option_loads_and_agrees(folders: dict[str, Path], layout: str) -> None:
    """q8 logits are near bf16's, q4 less near, and none are equal: each is read as what it is."""
    exact, q8, q4 = (_logits(folders[f"{layout}-{dense}"]) for dense in ("bf16", "q8", "q4"))
    assert exact.shape == (1, 6, TINY.vocab_size)
    near, far = (_difference(other, exact) for other in (q8, q4))
    assert 0 < near < 0.4
    assert 2 * near < far < 3


def test_matrices_hold_the_numbers_of_the_source(folders: dict[str, Path]) -> None:
    """An expert's gate matrix, dequantized as loaded, is the source's even rows decoded."""
    source = read_bits(folders["openai"])
    blocks = source["block.1.mlp.mlp1_weight.blocks"]
    truth = decode(blocks, source["block.1.mlp.mlp1_weight.scales"])[:, 0::2]
    _, weights = load_weights(folders["openai-q8"], mx.float32)
    gate = weights.matrix("model.layers.1.mlp.experts.gate_proj", *truth.shape)
    assert (gate.mode, gate.bits, gate.group_size) == ("mxfp4", 4, 32)
    assert gate.scales is not None
    found = mx.dequantize(
        gate.weight, gate.scales, group_size=32, bits=4, mode="mxfp4", dtype=mx.float32
    )
    assert found.tolist() == truth.tolist()


def test_configs_of_other_converters_load(copy: Path) -> None:
    """mlx-community's config.json has keys from everywhere: none stops a ready conversion."""
    expected = _logits(copy)
    config = json.loads((copy / "config.json").read_text())
    rope = {**config["rope_scaling"], "rope_theta": config["rope_theta"]}
    edit_config(
        copy,
        rope_parameters=rope,
        rope_scaling=None,
        rope_theta=None,
        quantization={"group_size": 32, "bits": 4, "mode": "mxfp4", ROUTER: {"bits": 8}},
        dtype="bfloat16",
        layer_types=None,
        unsloth_fixed=True,
        use_cache=True,
    )
    for name in ("conversion.json", "generation_config.json"):
        (copy / name).unlink()
    assert np.array_equal(_logits(copy), expected)


def test_a_quantized_router_loads(copy: Path) -> None:
    """mlx-community stores the router in 8 bit affine: loaded as such, from what its arrays are."""
    expected = _logits(copy)
    arrays = _load(copy)
    for n in range(TINY.num_hidden_layers):
        stem = f"model.layers.{n}.mlp.router"
        packed = mx.quantize(arrays.pop(f"{stem}.weight"), group_size=64, bits=8)
        arrays |= dict(
            zip((f"{stem}.weight", f"{stem}.scales", f"{stem}.biases"), packed, strict=True)
        )
    _save(copy, arrays)
    _, weights = load_weights(copy, mx.float32)
    router = weights.matrix(ROUTER, TINY.num_experts, TINY.hidden_size)
    assert (router.mode, router.bits, router.group_size) == ("affine", 8, 64)
    assert 0 < _difference(_logits(copy), expected) < 0.2


@pytest.mark.parametrize(("bits", "group_size"), [(8, 32), (4, 128), (6, 64)])
def test_other_affine_formats_load(
    folders: dict[str, Path], tmp_path: Path, bits: int, group_size: int
) -> None:
    """The width and the groups of an affine matrix follow from its arrays."""
    folder = Path(shutil.copytree(folders["openai-bf16"], tmp_path / "copy"))
    expected = _logits(folder)
    arrays = _load(folder)
    packed = mx.quantize(arrays.pop("lm_head.weight"), group_size=group_size, bits=bits)
    _save(
        folder,
        arrays
        | dict(zip(("lm_head.weight", "lm_head.scales", "lm_head.biases"), packed, strict=True)),
    )
    assert 0 < _difference(_logits(folder), expected) < 0.5


def test_parameters_take_the_compute_dtype(folders: dict[str, Path]) -> None:
    """Vectors and affine scales are cast, packed words and MXFP4 scales stay what they are."""
    _, weights = load_weights(folders["openai-q8"], mx.float32)
    assert weights.vector("model.norm.weight", TINY.hidden_size).dtype == mx.float32
    head = weights.matrix("lm_head", TINY.vocab_size, TINY.hidden_size)
    assert [array.dtype for array in head.arrays] == [mx.uint32, mx.float32, mx.float32]
    down = weights.matrix("model.layers.0.mlp.experts.down_proj", 4, 128, 96)
    assert [array.dtype for array in down.arrays] == [mx.uint32, mx.uint8]


@pytest.mark.parametrize("dense", ["bf16", "q8", "q4"])
@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16], ids=str)
@pytest.mark.parametrize(
    "ids",
    [[[3, 1, 2]], [[256, 0], [256, 256]], [[7]], [[5] * 40]],
    ids=["out-of-order", "last-and-repeated", "one", "many"],
)
def test_rows_on_disk_are_those_in_memory(
    folders: dict[str, Path], dense: str, dtype: mx.Dtype, ids: list[list[int]]
) -> None:
    """Looked up on disk or in memory, a token's embedding is the same, bit for bit."""
    numbers = mx.array(ids, mx.int32)
    rows: list[mx.array] = []
    for on_disk in (False, True):
        folder = folders[f"openai-{dense}"]
        _, weights = load_weights(folder, dtype, embedding_on_disk=on_disk)
        table = weights.embedding("model.embed_tokens", TINY.vocab_size, TINY.hidden_size)
        assert isinstance(table, RowsOnDisk) == on_disk
        assert bool(table.arrays) != on_disk
        rows.append(embed(numbers, table, dtype))
    assert rows[0].shape == rows[1].shape == (*numbers.shape, TINY.hidden_size)
    assert rows[0].dtype == rows[1].dtype == dtype
    assert mx.array_equal(rows[0], rows[1]).item()
    assert mx.any(rows[1] != 0).item()


def test_a_table_on_disk_is_not_read(folders: dict[str, Path]) -> None:
    """Looking up a row leaves MLX with that row, not with the table."""
    with mx.stream(mx.cpu):
        _, weights = load_weights(folders["openai-bf16"], mx.bfloat16, embedding_on_disk=True)
        table = weights.embedding("model.embed_tokens", TINY.vocab_size, TINY.hidden_size)
        before = mx.get_active_memory()
        row = table[mx.array([3])].weight
        mx.eval(row)
    assert mx.get_active_memory() - before < 10 * row.nbytes < TINY.vocab_size * row.nbytes


def test_only_the_embedding_stays_on_disk(folders: dict[str, Path]) -> None:
    """What is multiplied with is in memory, and an embedding is checked like any matrix."""
    _, weights = load_weights(folders["openai-q8"], mx.float32, embedding_on_disk=True)
    assert weights.matrix("lm_head", TINY.vocab_size, TINY.hidden_size).arrays
    with pytest.raises(TensorError, match="packed arrays do not fit"):
        weights.embedding("model.embed_tokens", TINY.vocab_size + 1, TINY.hidden_size)


def _drop(name: str) -> Callable[[dict[str, mx.array]], Any]:
    return lambda arrays: arrays.pop(name)


def _add(name: str) -> Callable[[dict[str, mx.array]], Any]:
    return lambda arrays: arrays.update({name: mx.zeros(4)})


def _set(name: str, array: Callable[[mx.array], mx.array]) -> Callable[[dict[str, mx.array]], Any]:
    return lambda arrays: arrays.update({name: array(arrays[name])})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_drop("model.norm.weight"), r"model\.norm\.weight is missing"),
        (_drop("lm_head.weight"), r"lm_head\.weight is missing"),
        (_drop("lm_head.biases"), r"lm_head\.biases is missing"),
        (_drop("lm_head.scales"), r"lm_head\.weight has shape \[257, 32\], not \[257, 128\]"),
        (_drop("model.layers.1.mlp.experts.up_proj.scales"), r"experts\.up_proj"),
        (_set("model.norm.weight", lambda a: a[:-1]), r"model\.norm\.weight has shape \[127\]"),
        (_set("lm_head.weight", lambda a: a[:-1]), "lm_head: packed arrays do not fit"),
        (_set("lm_head.weight", lambda a: a.astype(mx.float32)), "lm_head: packed arrays"),
        (_set("lm_head.scales", lambda a: a[:, :0]), "lm_head: packed arrays"),
        (_set("lm_head.scales", lambda a: a[:, 0]), "lm_head: packed arrays"),
        (_set("lm_head.biases", lambda a: a[:, :1]), "lm_head"),
        (
            _set("model.layers.0.mlp.experts.gate_proj.scales", lambda a: a[..., :2]),
            r"experts\.gate_proj: ",
        ),
        (
            _add("model.layers.2.mlp.router.bias"),
            r"model\.layers\.2\.mlp\.router\.bias does not belong",
        ),
    ],
)
def test_tensors_that_do_not_fit_are_named(
    copy: Path, change: Callable[[dict[str, mx.array]], Any], message: str
) -> None:
    """A tensor that is missing, misshapen or unexpected stops the loading, by its name."""
    arrays = _load(copy)
    change(arrays)
    _save(copy, arrays)
    with pytest.raises(TensorError, match=message):
        load_model(copy, mx.float32)


def _rename_the_shard(folder: Path) -> None:
    (folder / SHARD).rename(folder / "x.safetensors")


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        pytest.param(shutil.rmtree, MissingFileError, "no such folder.*demo", id="no-folder"),
        pytest.param(
            removal(SHARD),
            MissingFileError,
            "no .*safetensors file",
            id="no-shard",
        ),
        pytest.param(
            _rename_the_shard,
            MissingFileError,
            "model-00001-of-00001.safetensors is missing",
            id="shard-renamed",
        ),
        pytest.param(
            removal("config.json"),
            MissingFileError,
            r"config\.json: no such file",
            id="no-config",
        ),
        pytest.param(
            json_edit("config.json", hidden_size=None),
            ConfigError,
            "'hidden_size' is missing",
            id="config-lacks-a-key",
        ),
        pytest.param(cut(SHARD, -1), CorruptFileError, "truncated or damaged", id="truncated"),
        pytest.param(
            replacement("model.safetensors.index.json", b"{}"),
            GptOssError,
            r"model\.safetensors\.index\.json",
            id="index-without-map",
        ),
    ],
)
def test_folders_that_are_no_checkpoint(
    copy: Path, damage: Damage, error: type[GptOssError], message: str
) -> None:
    """What is wrong with the folder is said in one line."""
    damage(copy)
    with pytest.raises(error, match=message):
        load_weights(copy, mx.float32)


@pytest.mark.parametrize("layout", ["openai", "huggingface"])
def test_unconverted_checkpoints_are_sent_to_convert(folders: dict[str, Path], layout: str) -> None:
    """The published layouts must be converted first: the command is in the message."""
    with pytest.raises(UsageError, match=f"gptoss-mlx convert {folders[layout]} NEW_FOLDER"):
        load_weights(folders[layout], mx.float32)


def test_hidden_companions_of_macos_are_not_shards(copy: Path) -> None:
    """A `._x.safetensors` that macOS leaves on foreign disks does not keep a model from loading."""
    (copy / "._model-00001-of-00001.safetensors").write_bytes(b"\0\5\x16\7" + bytes(4000))
    assert load_weights(copy, mx.float32)[0] == TINY


def _load(folder: Path) -> dict[str, mx.array]:
    arrays = cast("dict[str, mx.array]", mx.load(str(folder / SHARD)))
    mx.eval(list(arrays.values()))
    return arrays


def _save(folder: Path, arrays: dict[str, mx.array]) -> None:
    mx.save_safetensors(str(folder / SHARD), arrays)
