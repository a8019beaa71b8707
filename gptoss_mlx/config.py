"""What a gpt-oss model is, in numbers; and how one request wants its tokens drawn.

Reads the two spellings of config.json in use: OpenAI's original (`num_experts`,
`rope_scaling_factor`) and Hugging Face's (`num_local_experts`, `rope_scaling` or
`rope_parameters`), which MLX conversions share. It does not know where the file lies, nor anything
about weights.
"""

from __future__ import annotations

import difflib
import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, cast

from gptoss_mlx.errors import ConfigError, MissingFileError, UsageError

__all__ = ["ModelConfig", "SamplingParams", "is_openai_config", "read_config_file"]

# Hugging Face keys that carry no number the model needs, or that repeat one.
_HF_IGNORED = frozenset(
    {
        "_name_or_path",
        "architectures",
        "attention_dropout",
        "bos_token_id",
        "dtype",
        "eos_token_id",
        "initializer_range",
        "model_type",
        "output_router_logits",
        "pad_token_id",
        "quantization",
        "quantization_config",
        "router_aux_loss_coef",
        "torch_dtype",
        "transformers_version",
        "use_cache",
    }
)
# Hugging Face keys that would change the computation if they had another value.
_HF_FIXED: dict[str, object] = {
    "attention_bias": True,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
}
# Where Hugging Face's config has a number: keys at its top, keys in its rope entry. Those that are
# there must agree.
_HF_PLACES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "num_experts": (("num_local_experts",), ()),
    "experts_per_token": (("num_experts_per_tok", "experts_per_token"), ()),
    "initial_context_length": (
        ("initial_context_length",),
        ("original_max_position_embeddings",),
    ),
    "rope_theta": (("rope_theta",), ("rope_theta",)),
    "rope_scaling_factor": ((), ("factor",)),
    "rope_ntk_alpha": ((), ("beta_slow",)),
    "rope_ntk_beta": ((), ("beta_fast",)),
}
_MOST_LAYERS = 1024
MAX_TEMPERATURE = 100  # beyond, all tokens are alike
MAX_BIAS = 100  # these and the next as in OpenAI's API
MAX_LOGPROBS = 20
_SAMPLING_RANGES = {
    "temperature": (0, MAX_TEMPERATURE),
    "min_p": (0, 1),
    "repetition_penalty": (0.01, 100),  # far outside, logits overflow
    "presence_penalty": (-2, 2),
    "frequency_penalty": (-2, 2),
}
_LARGEST = 2**31  # no number of a model comes near
_HF_ROPE_FIXED: dict[str, object] = {"rope_type": "yarn", "type": "yarn", "truncate": False}


@dataclass(frozen=True)
class ModelConfig:
    """The shape of a gpt-oss model, under the names of OpenAI's original config.json.

    Layers alternate: even ones attend to the last `sliding_window` tokens, odd ones to all.
    `rope_ntk_alpha` and `rope_ntk_beta` bound YaRN's ramp, in rotations over the initial context.
    """

    num_hidden_layers: int
    num_experts: int
    experts_per_token: int
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    swiglu_limit: float
    head_dim: int
    num_attention_heads: int
    num_key_value_heads: int
    sliding_window: int
    initial_context_length: int
    rope_theta: float
    rope_scaling_factor: float
    rope_ntk_alpha: float
    rope_ntk_beta: float

    def __post_init__(self) -> None:
        """Refuse numbers that contradict each other."""
        for field in fields(self):
            if getattr(self, field.name) <= 0:
                raise ConfigError(f"config.json: {field.name} must be positive")
        _require(self.num_hidden_layers <= _MOST_LAYERS, f"more than {_MOST_LAYERS} layers")
        _require(
            self.num_attention_heads % self.num_key_value_heads == 0,
            "num_attention_heads must be a multiple of num_key_value_heads",
        )
        _require(
            self.experts_per_token <= self.num_experts,
            "experts_per_token must not exceed num_experts",
        )
        _require(self.hidden_size % 32 == 0, "hidden_size must be a multiple of 32 (MXFP4 blocks)")
        _require(
            self.intermediate_size % 32 == 0,
            "intermediate_size must be a multiple of 32 (MXFP4 blocks)",
        )
        _require(self.head_dim % 2 == 0, "head_dim must be even (rotary pairs)")

    @property
    def rms_norm_eps(self) -> float:
        """Epsilon of every RMSNorm; a constant of the architecture."""
        return 1e-5

    @property
    def max_context_length(self) -> int:
        """Tokens that positions can encode: the initial context stretched by YaRN."""
        return int(self.initial_context_length * self.rope_scaling_factor)

    @property
    def query_size(self) -> int:
        """Width of all query heads together."""
        return self.num_attention_heads * self.head_dim

    @property
    def key_value_size(self) -> int:
        """Width of all key heads (or all value heads) together."""
        return self.num_key_value_heads * self.head_dim

    def is_sliding(self, layer: int) -> bool:
        """Whether this layer sees only the last `sliding_window` tokens."""
        return layer % 2 == 0

    @classmethod
    def from_dict(cls, raw: dict[str, Any], *, allow_unknown: bool = False) -> ModelConfig:
        """Read either spelling of config.json.

        Raises:
            ConfigError: a key is missing, of the wrong type, contradictory, or (unless
                `allow_unknown`) not one this version knows.
        """
        values, unknown = (_from_openai if is_openai_config(raw) else _from_hf)(raw)
        if unknown and not allow_unknown:
            raise ConfigError(_unknown_keys_message(unknown))
        return cls(**values)

    def to_openai_dict(self) -> dict[str, Any]:
        """The config.json of OpenAI's original layout."""
        return asdict(self)

    def to_hf_dict(self) -> dict[str, Any]:
        """The config.json of the Hugging Face layout, without its quantization entry.

        Rope is written as `rope_scaling` + `rope_theta`: stock mlx-lm reads no other spelling.
        """
        return {
            "architectures": ["GptOssForCausalLM"],
            "attention_bias": True,
            "attention_dropout": 0.0,
            "eos_token_id": 200002,
            "experts_per_token": self.experts_per_token,
            "head_dim": self.head_dim,
            "hidden_act": "silu",
            "hidden_size": self.hidden_size,
            "initial_context_length": self.initial_context_length,
            "initializer_range": 0.02,
            "intermediate_size": self.intermediate_size,
            "layer_types": [
                "sliding_attention" if self.is_sliding(i) else "full_attention"
                for i in range(self.num_hidden_layers)
            ],
            "max_position_embeddings": self.max_context_length,
            "model_type": "gpt_oss",
            "num_attention_heads": self.num_attention_heads,
            "num_experts_per_tok": self.experts_per_token,
            "num_hidden_layers": self.num_hidden_layers,
            "num_key_value_heads": self.num_key_value_heads,
            "num_local_experts": self.num_experts,
            "pad_token_id": 199999,
            "rms_norm_eps": self.rms_norm_eps,
            "rope_scaling": {
                "beta_fast": self.rope_ntk_beta,
                "beta_slow": self.rope_ntk_alpha,
                "factor": self.rope_scaling_factor,
                "original_max_position_embeddings": self.initial_context_length,
                "rope_type": "yarn",
                "truncate": False,
            },
            "rope_theta": self.rope_theta,
            "sliding_window": self.sliding_window,
            "swiglu_limit": self.swiglu_limit,
            "tie_word_embeddings": False,
            "torch_dtype": "bfloat16",
            "vocab_size": self.vocab_size,
        }


@dataclass(frozen=True)
class SamplingParams:
    """How to draw tokens. The defaults are OpenAI's recommendation for gpt-oss.

    Which tokens may be drawn: `temperature` 0 is greedy; `top_k` keeps that many of the likeliest
    (0: all); `top_p` keeps the smallest set with that much probability (arXiv 1904.09751); `min_p`
    keeps those at least that share of the likeliest's probability (0: all; arXiv 2407.01082).

    How likely they are: `repetition_penalty` divides the positive logits of ids that occur in
    prompt or completion, and multiplies the negative ones (1: off; arXiv 1909.05858).
    `presence_penalty` is taken from the logit of every id in the completion, `frequency_penalty`
    once for each time it occurs there, as OpenAI's API defines them. `logit_bias` is added: pairs
    of (id, bias).

    And the rest: `seed` makes a request repeatable; `max_tokens` None means until the context is
    full; `logprobs` asks for the log-probability of each id drawn (None: no), and for that many of
    the likeliest beside it.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    seed: int | None = None
    max_tokens: int | None = None
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    logprobs: int | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be drawn with.

        Raises:
            UsageError: a number is out of its range.
        """
        for name in ("seed", "max_tokens", "top_k", "logprobs"):
            if not isinstance(getattr(self, name), (int, type(None))):
                raise UsageError(f"{name} must be a whole number")
        for name, (low, high) in _SAMPLING_RANGES.items():
            if not low <= getattr(self, name) <= high:  # NaN, too
                raise UsageError(f"{name} must lie in {low}..{high}")
        if not 0 < self.top_p <= 1:
            raise UsageError("top_p must be above 0 and at most 1")
        if self.seed is not None and not 0 <= self.seed < 2**64:
            raise UsageError("seed must lie in 0..2^64 - 1")
        if self.max_tokens is not None and self.max_tokens < 0:
            raise UsageError("max_tokens must not be negative")
        if self.top_k < 0:
            raise UsageError("top_k must not be negative (0 keeps all tokens)")
        if self.logprobs is not None and not 0 <= self.logprobs <= MAX_LOGPROBS:
            raise UsageError(f"logprobs must lie in 0..{MAX_LOGPROBS}")
        self._check_bias()

    def _check_bias(self) -> None:
        if any(not -MAX_BIAS <= bias <= MAX_BIAS for _, bias in self.logit_bias):
            raise UsageError(f"a logit_bias must lie in -{MAX_BIAS}..{MAX_BIAS}")
        ids = {i for i, _ in self.logit_bias}
        if len(ids) < len(self.logit_bias) or min(ids, default=0) < 0:
            raise UsageError("logit_bias needs token ids, each once and none negative")


def read_config_file(path: Path) -> dict[str, Any]:
    """config.json as a dictionary.

    Raises:
        MissingFileError: there is no such file.
        ConfigError: it is not a JSON object.
    """
    try:
        raw: object = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise MissingFileError(f"{path}: no such file; is this a checkpoint folder?") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ConfigError(f"{path}: not valid JSON ({error})") from None
    if not isinstance(raw, dict):
        raise ConfigError(f"{path}: expected a JSON object")
    return cast("dict[str, Any]", raw)


def is_openai_config(raw: dict[str, Any]) -> bool:
    """Whether this is OpenAI's spelling rather than Hugging Face's."""
    return "num_local_experts" not in raw and "model_type" not in raw


def _from_openai(raw: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    names = [field.name for field in fields(ModelConfig)]
    return {name: _number(raw, name, name) for name in names}, sorted(raw.keys() - set(names))


def _from_hf(raw: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    _check_fixed(raw, {"model_type": "gpt_oss", **_HF_FIXED})
    ropes = _hf_ropes(raw)
    values: dict[str, Any] = {}
    known = set(_HF_IGNORED) | _HF_FIXED.keys()
    known |= {"rope_scaling", "rope_parameters", "layer_types", "max_position_embeddings"}
    known_rope = set(_HF_ROPE_FIXED)
    for name in (field.name for field in fields(ModelConfig)):
        keys, rope_keys = _HF_PLACES.get(name, ((name,), ()))
        known.update(keys)
        known_rope.update(rope_keys)
        places = [(raw, key) for key in keys]
        places += [(rope, key) for rope in ropes for key in rope_keys]
        values[name] = _agreed(name, places)
    _check_derived(raw, values)
    unknown = raw.keys() - known
    unknown |= {key for rope in ropes for key in rope if rope[key] is not None} - known_rope
    return values, sorted(unknown)


def _agreed(name: str, places: list[tuple[dict[str, Any], str]]) -> int | float:
    """The one number that all the places which have it agree on."""
    there = [(place, key) for place, key in places if place.get(key) is not None]
    if not there:
        raise ConfigError(f"config.json: the key {places[0][1]!r} is missing")
    numbers = [_number(place, key, name) for place, key in there]
    if len(set(numbers)) > 1:
        keys = " and ".join(dict.fromkeys(key for _, key in there))
        raise ConfigError(f"config.json: {keys} contradict each other: {numbers}")
    return numbers[0]


def _hf_ropes(raw: dict[str, Any]) -> list[dict[str, Any]]:
    ropes = [raw[key] for key in ("rope_parameters", "rope_scaling") if raw.get(key)]
    if not ropes or not all(isinstance(rope, dict) for rope in ropes):
        raise ConfigError("config.json: neither rope_scaling nor rope_parameters is there")
    for rope in cast("list[dict[str, Any]]", ropes):
        _check_fixed(rope, _HF_ROPE_FIXED)
    return ropes


def _check_fixed(raw: dict[str, Any], fixed: dict[str, object]) -> None:
    for key, expected in fixed.items():
        if raw.get(key, expected) != expected:
            raise ConfigError(f"config.json: {key} is {raw[key]!r}, not {expected!r}")


def _check_derived(raw: dict[str, Any], values: dict[str, Any]) -> None:
    """What follows from the numbers must be what they give, where it is spelled out."""
    layers = values["num_hidden_layers"]
    kinds = ["sliding_attention", "full_attention"] * layers
    length = int(values["initial_context_length"] * values["rope_scaling_factor"])
    if raw.get("layer_types") not in (None, kinds[:layers]):
        raise ConfigError(
            "config.json: layer_types must alternate sliding_attention, full_attention"
        )
    if raw.get("max_position_embeddings") not in (None, length):
        raise ConfigError(f"config.json: max_position_embeddings contradicts {length} from YaRN")


def _number(raw: dict[str, Any], key: str, name: str) -> int | float:
    value = raw.get(key)
    if value is None:
        raise ConfigError(f"config.json: the key {key!r} is missing")
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ConfigError(f"config.json: {key} is {value!r}, not a number")
    if not abs(value) < _LARGEST:  # NaN, too
        raise ConfigError(f"config.json: {key} is out of range")
    if ModelConfig.__annotations__[name] != "int":
        return float(value)
    if value != int(value):
        raise ConfigError(f"config.json: {key} is {value!r}, not a whole number")
    return int(value)


def _unknown_keys_message(unknown: list[str]) -> str:
    known = [field.name for field in fields(ModelConfig)] + ["num_local_experts", "rope_scaling"]
    close = difflib.get_close_matches(unknown[0], known, n=1)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    return (
        f"config.json: unknown key{'s' * (len(unknown) > 1)} {', '.join(unknown)}{hint}; "
        "update gptoss-mlx, or pass --allow-unknown-config if they change nothing"
    )


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigError(f"config.json: {message}")
