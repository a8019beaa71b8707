"""Both spellings of config.json, as published, what each refuses; and a request's numbers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from checkpoints import TINY

from gptoss_mlx.config import ModelConfig, SamplingParams, is_openai_config, read_config_file
from gptoss_mlx.convert.synthetic import GPT_OSS_20B
from gptoss_mlx.errors import ConfigError, MissingFileError, UsageError

# openai/gpt-oss-20b, original/config.json
PUBLISHED_OPENAI: dict[str, Any] = {
    "num_hidden_layers": 24,
    "num_experts": 32,
    "experts_per_token": 4,
    "vocab_size": 201088,
    "hidden_size": 2880,
    "intermediate_size": 2880,
    "swiglu_limit": 7.0,
    "head_dim": 64,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "sliding_window": 128,
    "initial_context_length": 4096,
    "rope_theta": 150000,
    "rope_scaling_factor": 32.0,
    "rope_ntk_alpha": 1,
    "rope_ntk_beta": 32,
}
# openai/gpt-oss-20b, config.json; mlx-community's conversions keep these keys and add to them
PUBLISHED_HF: dict[str, Any] = {
    "architectures": ["GptOssForCausalLM"],
    "attention_bias": True,
    "attention_dropout": 0.0,
    "eos_token_id": 200002,
    "experts_per_token": 4,
    "head_dim": 64,
    "hidden_act": "silu",
    "hidden_size": 2880,
    "initial_context_length": 4096,
    "initializer_range": 0.02,
    "intermediate_size": 2880,
    "layer_types": ["sliding_attention", "full_attention"] * 12,
    "max_position_embeddings": 131072,
    "model_type": "gpt_oss",
    "num_attention_heads": 64,
    "num_experts_per_tok": 4,
    "num_hidden_layers": 24,
    "num_key_value_heads": 8,
    "num_local_experts": 32,
    "output_router_logits": False,
    "pad_token_id": 199999,
    "quantization_config": {
        "modules_to_not_convert": ["model.layers.*.self_attn", "lm_head"],
        "quant_method": "mxfp4",
    },
    "rms_norm_eps": 1e-05,
    "rope_scaling": {
        "beta_fast": 32.0,
        "beta_slow": 1.0,
        "factor": 32.0,
        "original_max_position_embeddings": 4096,
        "rope_type": "yarn",
        "truncate": False,
    },
    "rope_theta": 150000,
    "router_aux_loss_coef": 0.9,
    "sliding_window": 128,
    "swiglu_limit": 7.0,
    "tie_word_embeddings": False,
    "transformers_version": "4.55.0.dev0",
    "use_cache": True,
    "vocab_size": 201088,
}


def _with_rope_parameters(hf: dict[str, Any]) -> dict[str, Any]:
    """The spelling of transformers 5: rope_theta has moved in among the rest."""
    rope = {**hf["rope_scaling"], "rope_theta": hf["rope_theta"]}
    rest = {key: value for key, value in hf.items() if key not in ("rope_scaling", "rope_theta")}
    return {**rest, "rope_parameters": rope}


def _without(raw: dict[str, Any], key: str) -> dict[str, Any]:
    return {k: value for k, value in raw.items() if k != key}


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(PUBLISHED_OPENAI, id="openai"),
        pytest.param(PUBLISHED_HF, id="hf"),
        pytest.param(_with_rope_parameters(PUBLISHED_HF), id="hf-rope_parameters"),
        pytest.param(
            {
                **PUBLISHED_HF,
                "quantization": {"group_size": 32, "bits": 4, "mode": "mxfp4", "lm_head": {}},
                "torch_dtype": "bfloat16",
            },
            id="mlx-community",
        ),
    ],
)
def test_published_spellings_mean_the_same_model(raw: dict[str, Any]) -> None:
    """Every config.json in circulation for the 20b reads as the same numbers."""
    assert ModelConfig.from_dict(raw) == GPT_OSS_20B


@pytest.mark.parametrize("config", [TINY, GPT_OSS_20B], ids=["tiny", "20b"])
def test_written_configs_read_back(config: ModelConfig) -> None:
    """Both dictionaries survive JSON and from_dict, and are told apart."""
    openai, hf = (
        json.loads(json.dumps(raw)) for raw in (config.to_openai_dict(), config.to_hf_dict())
    )
    assert ModelConfig.from_dict(openai) == ModelConfig.from_dict(hf) == config
    assert is_openai_config(openai)
    assert not is_openai_config(hf)


def test_written_hf_config_has_the_published_values() -> None:
    """What stock mlx-lm reads from a conversion is what it reads from OpenAI's own config.json."""
    written = GPT_OSS_20B.to_hf_dict()
    shared = PUBLISHED_HF.keys() & written.keys()
    assert {key: written[key] for key in shared} == {key: PUBLISHED_HF[key] for key in shared}
    assert {"rope_scaling", "rope_theta", "layer_types", "num_local_experts"} <= shared


@pytest.mark.parametrize("name", sorted(PUBLISHED_OPENAI))
def test_every_key_of_openai_is_needed(name: str) -> None:
    """Without any one of its keys the original config is refused, and the key is named."""
    with pytest.raises(ConfigError, match=f"{name!r} is missing"):
        ModelConfig.from_dict(_without(PUBLISHED_OPENAI, name))


@pytest.mark.parametrize(
    "name",
    ["num_local_experts", "swiglu_limit", "rope_theta", "sliding_window"],
)
def test_missing_hf_keys_are_named(name: str) -> None:
    """Without a key the model needs, Hugging Face's config is refused, and the key is named."""
    with pytest.raises(ConfigError, match=f"{name!r} is missing"):
        ModelConfig.from_dict(_without(PUBLISHED_HF, name))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_experts": "32"}, "num_experts is '32', not a number"),
        ({"num_experts": True}, "num_experts is True, not a number"),
        ({"hidden_size": 2880.5}, "hidden_size is 2880.5, not a whole number"),
        ({"hidden_size": 0}, "hidden_size must be positive"),
        ({"head_dim": -64}, "head_dim must be positive"),
        ({"hidden_size": 2881}, "hidden_size must be a multiple of 32"),
        ({"intermediate_size": 100}, "intermediate_size must be a multiple of 32"),
        ({"head_dim": 63}, "head_dim must be even"),
        ({"num_key_value_heads": 7}, "num_attention_heads must be a multiple of"),
        ({"experts_per_token": 33}, "experts_per_token must not exceed num_experts"),
    ],
)
def test_impossible_numbers_are_refused(changes: dict[str, Any], message: str) -> None:
    """A value no model can have is refused, and the key is named."""
    with pytest.raises(ConfigError, match=message):
        ModelConfig.from_dict({**PUBLISHED_OPENAI, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "llama"}, "model_type is 'llama', not 'gpt_oss'"),
        ({"attention_bias": False}, "attention_bias is False, not True"),
        ({"rms_norm_eps": 1e-6}, "rms_norm_eps is 1e-06, not 1e-05"),
        ({"tie_word_embeddings": True}, "tie_word_embeddings is True"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
        ({"rope_scaling": None}, "neither rope_scaling nor rope_parameters"),
        ({"rope_scaling": {"rope_type": "linear"}}, "rope_type is 'linear', not 'yarn'"),
        (
            {"rope_scaling": {**PUBLISHED_HF["rope_scaling"], "truncate": True}},
            "truncate is True, not False",
        ),
        ({"layer_types": ["full_attention"] * 24}, "layer_types must alternate"),
        ({"layer_types": ["sliding_attention", "full_attention"]}, "layer_types must alternate"),
    ],
)
def test_another_architecture_is_refused(changes: dict[str, Any], message: str) -> None:
    """Hugging Face keys that would change the computation must have gpt-oss's values."""
    with pytest.raises(ConfigError, match=message):
        ModelConfig.from_dict({**PUBLISHED_HF, **changes})


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"experts_per_token": 8}, id="experts_per_token"),
        pytest.param({"initial_context_length": 8192}, id="initial_context_length"),
        pytest.param({"max_position_embeddings": 4096}, id="max_position_embeddings"),
        pytest.param(
            {"rope_parameters": {**PUBLISHED_HF["rope_scaling"], "factor": 8.0}}, id="two-ropes"
        ),
        pytest.param(
            {"rope_scaling": {**PUBLISHED_HF["rope_scaling"], "rope_theta": 10000.0}},
            id="two-thetas",
        ),
        pytest.param(
            {"rope_scaling": {**PUBLISHED_HF["rope_scaling"], "attention_factor": 2.0}},
            id="attention_factor",
        ),
    ],
)
def test_contradictions_are_refused(changes: dict[str, Any]) -> None:
    """Where config.json says one thing twice, differently, nobody guesses which is meant."""
    with pytest.raises(ConfigError):
        ModelConfig.from_dict({**PUBLISHED_HF, **changes})


@pytest.mark.parametrize("raw", [PUBLISHED_OPENAI, PUBLISHED_HF], ids=["openai", "hf"])
def test_unknown_keys_are_refused_unless_allowed(raw: dict[str, Any]) -> None:
    """A key from the future may change the model: refused by name, with the way round it."""
    future = {**raw, "num_shared_experts": 1}
    with pytest.raises(ConfigError, match=r"num_shared_experts.*--allow-unknown-config"):
        ModelConfig.from_dict(future)
    assert ModelConfig.from_dict(future, allow_unknown=True) == GPT_OSS_20B


def test_a_misspelt_key_gets_a_suggestion() -> None:
    """An unknown key that is close to a known one is answered with that."""
    with pytest.raises(ConfigError, match=r"slidng_window.*did you mean 'sliding_window'"):
        ModelConfig.from_dict({**PUBLISHED_OPENAI, "slidng_window": 128})


def test_derived_numbers() -> None:
    """Widths, context and the alternation of layers follow from the config."""
    assert (GPT_OSS_20B.query_size, GPT_OSS_20B.key_value_size) == (4096, 512)
    assert GPT_OSS_20B.max_context_length == 131_072
    assert [GPT_OSS_20B.is_sliding(layer) for layer in range(4)] == [True, False, True, False]
    assert replace(TINY, rope_scaling_factor=1.0).max_context_length == 64


@pytest.mark.parametrize(
    ("contents", "error", "message"),
    [
        (None, MissingFileError, "no such file"),
        (b"", ConfigError, "not valid JSON"),
        (b"{'a': 1}", ConfigError, "not valid JSON"),
        (b"\xff\xfe{}", ConfigError, "not valid JSON"),
        (b"[1]", ConfigError, "expected a JSON object"),
    ],
)
def test_unreadable_files_are_named(
    tmp_path: Path, contents: bytes | None, error: type[Exception], message: str
) -> None:
    """A config.json that is absent or no JSON object gives its path and the reason."""
    path = tmp_path / "config.json"
    if contents is not None:
        path.write_bytes(contents)
    with pytest.raises(error, match=f"{path}: {message}"):
        read_config_file(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"temperature": -0.1}, r"temperature must lie in 0\.\.100"),
        ({"temperature": float("nan")}, r"temperature must lie in 0\.\.100"),
        ({"top_p": 0.0}, "top_p must be above 0"),
        ({"top_p": 1.1}, "top_p must be above 0 and at most 1"),
        ({"top_k": -1}, "top_k must not be negative"),
        ({"min_p": 1.5}, r"min_p must lie in 0\.\.1"),
        ({"repetition_penalty": 0.0}, r"repetition_penalty must lie in 0\.01\.\.100"),
        ({"presence_penalty": 2.5}, r"presence_penalty must lie in -2\.\.2"),
        ({"frequency_penalty": -3}, r"frequency_penalty must lie in -2\.\.2"),
        ({"logit_bias": ((1, 101.0),)}, r"a logit_bias must lie in -100\.\.100"),
        ({"logit_bias": ((1, float("nan")),)}, r"a logit_bias must lie in -100\.\.100"),
        ({"logit_bias": ((-1, 1.0),)}, "none negative"),
        ({"logit_bias": ((1, 1.0), (1, 2.0))}, "each once"),
        ({"logprobs": 21}, r"logprobs must lie in 0\.\.20"),
        ({"logprobs": -1}, r"logprobs must lie in 0\.\.20"),
        ({"seed": 2**64}, "seed must lie in"),
        ({"max_tokens": -1}, "max_tokens must not be negative"),
    ],
)
def test_parameters_out_of_range_are_refused(changes: dict[str, Any], message: str) -> None:
    """Each in one line that names it and its range."""
    with pytest.raises(UsageError, match=message):
        SamplingParams(**changes)


def test_parameters_at_the_ends_of_their_ranges() -> None:
    """Ends belong to the ranges, and parameters can be compared and hashed."""
    ends = SamplingParams(
        100, 1.0, 2**64 - 1, 0, 0, 1.0, 0.01, -2, 2, logit_bias=((0, -100.0),), logprobs=20
    )
    assert len({ends, replace(ends), SamplingParams()}) == 2
