"""The random models of the parity suite: small in width, as gpt-oss is in everything else.

Each has gpt-oss's heads of 64, window of 128, YaRN, sinks and top-4 routing. The length of a case
says what it exercises: less than a window, one token more than it, some windows, more than the
initial context of 4,096.

The seeds are such that no token's fourth and fifth expert are within ROUTING_MARGIN of each other:
closer, the order of a sum decides which of them it goes through, and correct models part by far
more than rounding. make_golden.py checks it. This module does not know the references.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast
from unittest import mock

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from gptoss_mlx.config import ModelConfig
from gptoss_mlx.convert import Dense, convert
from gptoss_mlx.convert.synthetic import GPT_OSS_20B, write_random_checkpoint
from gptoss_mlx.model import Model

__all__ = [
    "CASES",
    "ROUTING_MARGIN",
    "Case",
    "Checkpoint",
    "CheckpointOf",
    "convert_weights",
    "logits_of",
    "write_checkpoint",
    "write_huggingface_twin",
]

_SMALL = replace(
    GPT_OSS_20B,
    num_hidden_layers=4,
    vocab_size=1000,
    hidden_size=128,
    intermediate_size=96,
    num_attention_heads=16,
    num_key_value_heads=2,
)
_FULL_VOCABULARY = replace(
    _SMALL, vocab_size=GPT_OSS_20B.vocab_size, hidden_size=64, intermediate_size=64
)
_UNEVEN = replace(
    _SMALL,
    num_hidden_layers=5,
    vocab_size=777,
    hidden_size=160,
    intermediate_size=224,
    num_attention_heads=12,
    num_key_value_heads=4,
)
_FEW_HEADS = replace(_SMALL, num_attention_heads=2, num_key_value_heads=1)


@dataclass(frozen=True)
class Case:
    """A random model and a random prompt, both given by the seed."""

    name: str
    config: ModelConfig
    seed: int
    tokens: int
    embedding_scale: float = 1.0

    @property
    def ids(self) -> NDArray[np.int64]:
        """The prompt (T,)."""
        return np.random.default_rng(self.seed).integers(0, self.config.vocab_size, self.tokens)


@dataclass(frozen=True)
class Checkpoint:
    """The model of a case on disk, in OpenAI's layout and converted with bf16 dense weights."""

    case: Case
    openai: Path
    mlx: Path

    @property
    def tensors(self) -> Path:
        """The one file of tensors in OpenAI's layout."""
        return self.openai / "model-00001-of-00001.safetensors"

    @property
    def sha256(self) -> str:
        """Of that file."""
        with self.tensors.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


CheckpointOf = Callable[[Case], Checkpoint]

ROUTING_MARGIN = 1e-5  # of router logits, which differ by 3e-6 from one implementation to the other
CASES = {
    case.name: case
    for case in (
        *(
            Case(
                f"{experts}-experts-{tokens}-tokens-seed-{seed}",
                replace(_SMALL, num_experts=experts),
                seed,
                tokens,
            )
            for experts in (32, 128)
            for tokens, seed in ((64, 0), (129, 5), (320, 1), (320, 4))
        ),
        Case("uneven-widths-320-tokens", _UNEVEN, 4, 320),
        # activations so small that RMSNorm's epsilon counts
        Case("quiet-320-tokens", replace(_SMALL, num_experts=32), 5, 320, embedding_scale=2**-5),
        Case("full-vocabulary-129-tokens", _FULL_VOCABULARY, 5, 129),
        Case("few-heads-4097-tokens", _FEW_HEADS, 7, 4097),
    )
}


def write_checkpoint(folder: Path, case: Case) -> Checkpoint:
    """Write the model of a case into a folder, in both layouts."""
    checkpoint = Checkpoint(case, folder / "openai", folder / "mlx")
    write_random_checkpoint(checkpoint.openai, case.config, seed=case.seed)
    if case.embedding_scale != 1:
        _scale_embedding(checkpoint.tensors, case.embedding_scale)
    convert_weights(checkpoint.openai, checkpoint.mlx, "bf16")
    return checkpoint


def convert_weights(source: Path, destination: Path, dense: Dense) -> None:
    """Convert without a tokenizer: it takes seconds to make, and no test of logits reads it."""
    with mock.patch("gptoss_mlx.convert.conversion.add_tokenizer"):
        convert(source, destination, dense=dense)


def logits_of(
    model: Model, ids: NDArray[np.int64], chunk: int | None = None
) -> NDArray[np.float32]:
    """The model's logits for a prompt.

    Args:
        model: computes in float32.
        ids: (T,) or (B, T).
        chunk: tokens a step, into a cache; None: all in one step, without a cache.

    Returns:
        (T, V) or (B, T, V).
    """
    prompt = mx.array(np.atleast_2d(ids))
    if chunk is None:
        logits = model(prompt)
    else:
        cache = model.new_cache()
        steps: list[mx.array] = []
        for start in range(0, prompt.shape[1], chunk):
            steps.append(model(prompt[:, start : start + chunk], cache))
            mx.eval(steps[-1], cache.arrays)
        logits = mx.concatenate(steps, axis=1)
    return np.asarray(logits, dtype=np.float32).reshape(*ids.shape, -1)


def _scale_embedding(path: Path, scale: float) -> None:
    """Multiply the embedding by a power of two."""
    tensors = cast("dict[str, mx.array]", mx.load(str(path)))
    mx.eval(tensors)
    tensors["embedding.weight"] = tensors["embedding.weight"] * scale
    mx.save_safetensors(str(path), tensors)


# Where OpenAI's names and Hugging Face's differ, replaced in this order. Not that of
# gptoss_mlx.convert.names, so that an error there cannot cancel out.
_HUGGINGFACE_NAMES = {
    "unembedding.": "lm_head.",
    "embedding.": "model.embed_tokens.",
    "block.": "model.layers.",
    "attn.norm.scale": "input_layernorm.weight",
    "mlp.norm.scale": "post_attention_layernorm.weight",
    "norm.scale": "model.norm.weight",
    "attn.out.": "self_attn.o_proj.",
    "attn.sinks": "self_attn.sinks",
    "mlp.gate.": "mlp.router.",
    "mlp.mlp1_": "mlp.experts.gate_up_proj_",
    "mlp.mlp2_": "mlp.experts.down_proj_",
    "proj_weight.": "proj_",
}


def write_huggingface_twin(source: Path, destination: Path, config: ModelConfig) -> None:
    """Write the tensors of OpenAI's layout, every bit of them, again in Hugging Face's."""
    stored = mx.load(str(source / "model-00001-of-00001.safetensors"))
    tensors: dict[str, mx.array] = {}
    for name, tensor in cast("dict[str, mx.array]", stored).items():
        for old, new in _HUGGINGFACE_NAMES.items():
            name = name.replace(old, new)
        if "attn.qkv" in name:
            bounds = [config.query_size, config.query_size + config.key_value_size]
            for head, part in zip("qkv", mx.split(tensor, bounds), strict=True):
                tensors[name.replace("attn.qkv", f"self_attn.{head}_proj")] = part
        else:
            tensors[name] = tensor
    destination.mkdir()
    mx.save_safetensors(str(destination / "model.safetensors"), tensors, {"format": "pt"})
    # the usual padding and end tokens lie outside a small vocabulary, which transformers refuses
    raw = {**config.to_hf_dict(), "pad_token_id": None, "eos_token_id": None}
    raw["quantization_config"] = {"quant_method": "mxfp4"}
    (destination / "config.json").write_text(json.dumps(raw))
