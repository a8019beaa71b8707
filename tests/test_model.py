"""The transformer: rotary frequencies, shapes, caches, dtypes, and checkpoints that do not fit."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import mlx.core as mx
import numpy as np
import pytest
from checkpoints import TINY
from helpers import array, random_model, write_converted

from gptoss_mlx.config import ModelConfig
from gptoss_mlx.convert import Dense
from gptoss_mlx.convert.synthetic import GPT_OSS_20B
from gptoss_mlx.errors import ConfigError, MissingFileError, TensorError, UsageError
from gptoss_mlx.model import Model, load_model, yarn_frequencies
from gptoss_mlx.weights import Weights

IDS = mx.array([[(7 * i * i + 3) % TINY.vocab_size for i in range(300)]])
Arrays = dict[str, mx.array]


@pytest.fixture(scope="session")
def model() -> Model:
    """A small random model."""
    return random_model()


@pytest.fixture(scope="session")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A converted checkpoint of the same shape."""
    return write_converted(tmp_path_factory.mktemp("model"))


def published_frequencies(config: ModelConfig) -> list[float]:
    """YaRN by parts, pair by pair, as its paper has it: rotations decide, in float64."""
    frequencies: list[float] = []
    for pair in range(config.head_dim // 2):
        frequency = config.rope_theta ** (-2 * pair / config.head_dim)

        def index(rotations: float) -> float:
            wavelength = config.initial_context_length / rotations
            return (
                config.head_dim
                * math.log(wavelength / (2 * math.pi))
                / (2 * math.log(config.rope_theta))
            )

        low, high = index(config.rope_ntk_beta), index(config.rope_ntk_alpha)
        kept = 1 - min(max((pair - low) / (high - low), 0), 1)
        frequencies.append(frequency * (kept + (1 - kept) / config.rope_scaling_factor))
    return frequencies


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"head_dim": 128},
        {"rope_scaling_factor": 4.0},
        {"initial_context_length": 8192},
        {"rope_ntk_beta": 16.0, "rope_ntk_alpha": 2.0},
    ],
)
def test_yarn_is_the_published_formula(changes: dict[str, Any]) -> None:
    """Frequencies and concentration follow the paper, without rounding the bounds of the ramp."""
    config = replace(GPT_OSS_20B, **changes)
    frequencies, concentration = yarn_frequencies(config)
    assert frequencies.dtype == np.float32
    np.testing.assert_allclose(frequencies, published_frequencies(config), rtol=2e-6)
    assert concentration == pytest.approx(0.1 * math.log(config.rope_scaling_factor) + 1)


def test_yarn_of_the_published_models() -> None:
    """The ramp of gpt-oss lies between pairs 8.09 and 17.40 of 32; both sides have known values."""
    frequencies, concentration = yarn_frequencies(GPT_OSS_20B)
    plain = 150_000.0 ** (-np.arange(32) / 32)
    np.testing.assert_allclose(frequencies[:9], plain[:9], rtol=1e-6)
    np.testing.assert_allclose(frequencies[18:], plain[18:] / 32, rtol=1e-6)
    ramp = (frequencies[9:18] / plain[9:18] - 1) / (1 / 32 - 1)
    np.testing.assert_allclose(ramp, (np.arange(9, 18) - 8.0928) / (17.3980 - 8.0928), atol=1e-4)
    assert concentration == pytest.approx(1.3465736)


def test_without_scaling_rope_is_plain() -> None:
    """A factor of one leaves every frequency and the scores alone."""
    frequencies, concentration = yarn_frequencies(replace(GPT_OSS_20B, rope_scaling_factor=1.0))
    np.testing.assert_allclose(frequencies, 150_000.0 ** (-np.arange(32) / 32), rtol=1e-6)
    assert concentration == 1


def test_shapes(model: Model) -> None:
    """ids (B, T) give hidden states (B, T, H) and logits (B, T, V), in the model's dtype."""
    ids = IDS[:, :12].reshape(3, 4)
    hidden = model.hidden_states(ids)
    assert hidden.shape == (3, 4, TINY.hidden_size)
    assert model.logits(hidden).shape == model(ids).shape == (3, 4, TINY.vocab_size)
    assert model.logits(hidden[:, -1]).shape == (3, TINY.vocab_size)
    assert hidden.dtype == model(ids).dtype == model.dtype == mx.float32


@pytest.mark.parametrize("dtype", [mx.uint8, mx.int16, mx.uint64])
def test_ids_of_any_integer_type(model: Model, dtype: mx.Dtype) -> None:
    """However narrow, ids are ids."""
    ids = mx.array([[1, 90, 3]])
    assert array(model(ids.astype(dtype))).tolist() == array(model(ids)).tolist()


def test_a_batch_is_its_rows(model: Model) -> None:
    """Sequences of a batch do not see each other."""
    ids = IDS[:, :40].reshape(2, 20)
    together = array(model(ids))
    apart = np.concatenate([array(model(row[None])) for row in ids])
    np.testing.assert_allclose(together, apart, atol=1e-4)


def test_no_position_sees_the_future(model: Model) -> None:
    """Logits do not depend on later ids."""
    changed = mx.concatenate([IDS[:, :20], (IDS[:, 20:40] + 1) % TINY.vocab_size], axis=-1)
    np.testing.assert_allclose(
        array(model(changed))[:, :20], array(model(IDS[:, :40]))[:, :20], atol=1e-4
    )


@pytest.mark.parametrize(
    "cuts", [[1] * 30, [7, 1, 1, 1], [8, 1], [9, 1], [20, 20, 20], [255, 1, 1, 1], [130, 1, 169]]
)
def test_a_cache_changes_nothing(model: Model, cuts: list[int]) -> None:
    """Fed in pieces through a cache, a sequence has the logits of one pass without it."""
    length = sum(cuts)
    cache = model.new_cache()
    pieces: list[mx.array] = []
    for cut in cuts:
        pieces.append(model(IDS[:, cache.offset : cache.offset + cut], cache))
    assert cache.offset == length
    expected = array(model(IDS[:, :length]))
    np.testing.assert_allclose(array(mx.concatenate(pieces, axis=1)), expected, atol=1e-3)


@pytest.mark.parametrize("T", [1, 3])
def test_sequences_of_a_batch_are_independent(model: Model, T: int) -> None:
    """Rows that are at different positions have the logits they would have alone."""
    lengths = (1, 8, 30, 260)
    caches = [model.new_cache() for _ in lengths]
    for cache, length in zip(caches, lengths, strict=True):
        model(IDS[:, :length], cache)
    new = mx.concatenate([IDS[:, length : length + T] for length in lengths])
    for row, length in zip(array(model(new, *caches)), lengths, strict=True):
        expected = array(model(IDS[:, : length + T]))[0, -T:]
        np.testing.assert_allclose(row, expected, atol=1e-3)
    assert [cache.offset for cache in caches] == [length + T for length in lengths]


def test_fingerprints(tmp_path: Path, model: Model) -> None:
    """Another number, another format or another dtype is another model; the same file is not."""
    same, other = write_converted(tmp_path / "a"), write_converted(tmp_path / "b", "q8")
    models = [model, load_model(same, mx.bfloat16), load_model(other, mx.float32)]
    assert load_model(same, mx.float32).fingerprint == model.fingerprint
    changed = load_model(same, mx.float32)
    changed.blocks[1].attention.sinks = changed.blocks[1].attention.sinks + 1e-3
    assert len({m.fingerprint for m in [*models, changed]}) == 4


@pytest.mark.parametrize("dense", ["bf16", "q8", "q4"])
def test_dense_formats(tmp_path: Path, model: Model, dense: Dense) -> None:
    """Dense matrices are read in the format they have, and quantized ones are near the original."""
    quantized = load_model(write_converted(tmp_path, dense), mx.float32)
    assert quantized.lm_head.bits == {"bf16": 16, "q8": 8, "q4": 4}[dense]
    a, b = (array(m(IDS[:, :20])) for m in (model, quantized))
    error = np.sqrt(np.mean((a - b) ** 2)) / np.std(a)
    assert error < {"bf16": 1e-6, "q8": 0.1, "q4": 0.9}[dense]


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [(mx.float32, mx.float32), (mx.bfloat16, mx.bfloat16), (mx.float16, mx.float16), (None, None)],
)
def test_dtypes(converted: Path, dtype: mx.Dtype | None, expected: mx.Dtype | None) -> None:
    """Activations have the dtype asked for; by default float32 on the CPU, bfloat16 on a GPU."""
    if expected is None:
        on_cpu = mx.default_device() == mx.Device(mx.cpu)
        expected = mx.float32 if on_cpu else mx.bfloat16
    loaded = load_model(converted, dtype)
    logits = loaded(IDS[:, :9])
    assert loaded.dtype == logits.dtype == expected
    assert np.isfinite(array(logits.astype(mx.float32))).all()


def test_arrays_are_the_checkpoint(converted: Path, model: Model) -> None:
    """Every number of the file is in one of the model's arrays."""
    assert sum(a.size for a in model.arrays) == sum(a.size for a in read(converted).values())
    assert sum(a.size for a in model.arrays) == sum(a.size for a in read(converted).values())


def read(folder: Path) -> Arrays:
    """All tensors of a folder of one file."""
    (path,) = folder.glob("*.safetensors")
    return cast("Arrays", mx.load(str(path)))


def drop(name: str) -> Callable[[Arrays], None]:
    """An edit that removes a tensor."""
    return lambda arrays: [arrays.pop(name)].clear()


def put(name: str, *shape: int, dtype: mx.Dtype = mx.bfloat16) -> Callable[[Arrays], None]:
    """An edit that adds a tensor or puts zeros of another shape in its place."""
    return lambda arrays: arrays.update({name: mx.zeros(shape, dtype)})


EXPERTS = "model.layers.0.mlp.experts.gate_proj"
DAMAGES: dict[str, tuple[str, Callable[[Arrays], None]]] = {
    "no norm": ("model.norm.weight", drop("model.norm.weight")),
    "no lm_head": ("lm_head.weight", drop("lm_head.weight")),
    "no sinks": ("model.layers.1.self_attn.sinks", drop("model.layers.1.self_attn.sinks")),
    "no bias": (f"{EXPERTS}.bias", drop(f"{EXPERTS}.bias")),
    "no scales": (EXPERTS, drop(f"{EXPERTS}.scales")),
    "another layer": ("model.layers.2.norm.weight", put("model.layers.2.norm.weight", 128)),
    "another bias": ("lm_head.bias", put("lm_head.bias", 257)),
    "narrow norm": ("model.norm.weight", put("model.norm.weight", 127)),
    "short lm_head": ("lm_head.weight", put("lm_head.weight", 256, 128)),
    "few sinks": ("model.layers.0.self_attn.sinks", put("model.layers.0.self_attn.sinks", 5)),
    "few packed rows": (EXPERTS, put(f"{EXPERTS}.weight", 4, 95, 16, dtype=mx.uint32)),
    "signed words": (EXPERTS, put(f"{EXPERTS}.weight", 4, 96, 16, dtype=mx.int32)),
    "few words": (EXPERTS, put(f"{EXPERTS}.weight", 4, 96, 8, dtype=mx.uint32)),
    "few rows of scales": (EXPERTS, put(f"{EXPERTS}.scales", 4, 95, 4, dtype=mx.uint8)),
    "few groups": (EXPERTS, put(f"{EXPERTS}.scales", 4, 96, 2, dtype=mx.uint8)),
    "no groups": (EXPERTS, put(f"{EXPERTS}.scales", 4, 96, 0, dtype=mx.uint8)),
    "scalar scales": (EXPERTS, put(f"{EXPERTS}.scales", dtype=mx.uint8)),
    "affine without biases": (EXPERTS, put(f"{EXPERTS}.scales", 4, 96, 4)),
}


@pytest.mark.parametrize("damaged", DAMAGES)
def test_tensors_that_do_not_fit(converted: Path, damaged: str) -> None:
    """A missing, misshapen or additional tensor is an error that names it."""
    named, damage = DAMAGES[damaged]
    arrays = read(converted)
    damage(arrays)
    with pytest.raises(TensorError, match=named.replace(".", r"\.")):
        Model(TINY, Weights(arrays, mx.float32))


def test_dense_experts_are_refused(converted: Path) -> None:
    """Experts that are not quantized are refused when the model is made, not when it runs."""
    arrays = read(converted)
    drop(f"{EXPERTS}.scales")(arrays)
    put(f"{EXPERTS}.weight", 4, 96, 128)(arrays)
    with pytest.raises(TensorError, match=EXPERTS):
        Model(TINY, Weights(arrays, mx.float32))


@pytest.mark.parametrize(
    ("scales", "biases"), [((8, 1), (7, 1)), ((8, 1), (8, 2)), ((8, 3), (8, 3)), ((8, 0), (8, 0))]
)
def test_affine_groups_must_fit(scales: tuple[int, ...], biases: tuple[int, ...]) -> None:
    """Scales and biases of 8-bit rows of 64 that make no group, or not the same, are refused."""
    arrays = {
        "a.weight": mx.zeros((8, 16), mx.uint32),
        "a.scales": mx.zeros(scales),
        "a.biases": mx.zeros(biases),
    }
    with pytest.raises(TensorError, match="tensor a"):
        Weights(arrays, mx.float32).matrix("a", 8, 64)


def test_folders_that_are_no_checkpoint(tmp_path: Path, converted: Path) -> None:
    """No folder, an empty one, one without a config, and an original one: each has its error."""
    with pytest.raises(MissingFileError, match="no such folder"):
        load_model(tmp_path / "absent")
    with pytest.raises(MissingFileError, match="safetensors"):
        load_model(tmp_path)
    (tmp_path / "model.safetensors").symlink_to(next(converted.glob("*.safetensors")))
    with pytest.raises(MissingFileError, match=r"config\.json"):
        load_model(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ConfigError, match="JSON"):
        load_model(tmp_path)
    with pytest.raises(UsageError, match="gptoss-mlx convert"):
        load_model(converted.parent / "original")
