"""Which tensors a source checkpoint holds, and which rows of each become which tensor in MLX.

Every tensor is seen as rows: all axes but the last (for MXFP4 blocks, all but the last two)
flattened. A `Part` takes the rows start, start + step, ... below stop. So splitting OpenAI's fused
q/k/v weight and taking the interleaved gate (even) and up (odd) rows apart are the same operation,
on any dtype.

It does not know files. Sources: openai/gpt-oss `gpt_oss/torch/model.py` and `weights.py` for the
original names; transformers' `GptOssForCausalLM` for Hugging Face's; mlx-lm's `gpt_oss.py` for
MLX's.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from gptoss_mlx.config import ModelConfig
from gptoss_mlx.convert.mxfp4 import BLOCK_SIZE

__all__ = [
    "DTYPE_BYTES",
    "Layout",
    "Part",
    "SourceTensor",
    "TensorSpec",
    "is_dense",
    "source_tensors",
]

Layout = Literal["openai", "huggingface"]
DTYPE_BYTES = {"BF16": 2, "F32": 4, "U8": 1, "U32": 4}
BLOCK_BYTES = BLOCK_SIZE // 2


@dataclass(frozen=True)
class TensorSpec:
    """A tensor's safetensors dtype and shape."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Bytes the tensor takes."""
        return math.prod(self.shape) * DTYPE_BYTES[self.dtype]


@dataclass(frozen=True)
class Part:
    """The rows start, start + step, ... < stop of a source tensor, under their MLX name."""

    name: str
    spec: TensorSpec
    start: int
    stop: int
    step: int = 1


@dataclass(frozen=True)
class SourceTensor:
    """What a tensor of the source must look like, its number of rows, and what becomes of them."""

    spec: TensorSpec
    rows: int
    parts: tuple[Part, ...]

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return self.spec.nbytes // self.rows


def source_tensors(config: ModelConfig, layout: Layout) -> dict[str, SourceTensor]:
    """Every tensor the source must hold, by name. Shapes are those of the config."""
    rename = _same_name if layout == "openai" else _hf_name
    return {rename(name): tensor for name, tensor in _all_tensors(config, fused=layout == "openai")}


def is_dense(name: str) -> bool:
    """Whether `--dense` may quantize this MLX tensor: attention projections, embedding, lm_head."""
    return (name.endswith("_proj.weight") and ".self_attn." in name) or name in _DENSE_ENDS


_DENSE_ENDS = ("model.embed_tokens.weight", "lm_head.weight")


def _all_tensors(config: ModelConfig, *, fused: bool) -> Iterator[tuple[str, SourceTensor]]:
    """Pairs of (canonical source name, tensor); `{n}` is already filled in."""
    V, H = config.vocab_size, config.hidden_size
    yield "embedding.weight", _whole("model.embed_tokens.weight", V, H)
    yield "norm.scale", _whole("model.norm.weight", H)
    yield "unembedding.weight", _whole("lm_head.weight", V, H)
    for n in range(config.num_hidden_layers):
        for name, tensor in (*_attention(config, n, fused=fused), *_mlp(config, n)):
            yield f"block.{n}.{name}", tensor


def _attention(config: ModelConfig, n: int, *, fused: bool) -> Iterable[tuple[str, SourceTensor]]:
    H, Q, K = config.hidden_size, config.query_size, config.key_value_size
    target = f"model.layers.{n}.self_attn"
    heads = {"q": Q, "k": K, "v": K}
    for kind, width in (("weight", (H,)), ("bias", ())):
        if fused:
            yield (
                f"attn.qkv.{kind}",
                _split_rows(
                    [(f"{target}.{h}_proj.{kind}", rows) for h, rows in heads.items()], width
                ),
            )
        else:
            for h, rows in heads.items():
                yield f"attn.{h}.{kind}", _whole(f"{target}.{h}_proj.{kind}", rows, *width)
    yield "attn.sinks", _whole(f"{target}.sinks", config.num_attention_heads)
    yield "attn.out.weight", _whole(f"{target}.o_proj.weight", H, Q)
    yield "attn.out.bias", _whole(f"{target}.o_proj.bias", H)
    yield "attn.norm.scale", _whole(f"model.layers.{n}.input_layernorm.weight", H)
    yield "mlp.norm.scale", _whole(f"model.layers.{n}.post_attention_layernorm.weight", H)


def _mlp(config: ModelConfig, n: int) -> Iterable[tuple[str, SourceTensor]]:
    E, H, inner = config.num_experts, config.hidden_size, config.intermediate_size
    target = f"model.layers.{n}.mlp"
    gate_up = (f"{target}.experts.gate_proj", f"{target}.experts.up_proj")
    down = (f"{target}.experts.down_proj",)
    yield "mlp.gate.weight", _whole(f"{target}.router.weight", E, H)
    yield "mlp.gate.bias", _whole(f"{target}.router.bias", E)
    for source, targets, rows, width in (("mlp1", gate_up, inner, H), ("mlp2", down, H, inner)):
        G = width // BLOCK_SIZE
        shape = (E, rows * len(targets))
        yield (
            f"mlp.{source}_weight.blocks",
            _interleaved(
                TensorSpec("U8", (*shape, G, BLOCK_BYTES)),
                [f"{t}.weight" for t in targets],
                TensorSpec("U32", (E, rows, width // 8)),
            ),
        )
        yield (
            f"mlp.{source}_weight.scales",
            _interleaved(
                TensorSpec("U8", (*shape, G)),
                [f"{t}.scales" for t in targets],
                TensorSpec("U8", (E, rows, G)),
            ),
        )
        yield (
            f"mlp.{source}_bias",
            _interleaved(
                TensorSpec("BF16", shape),
                [f"{t}.bias" for t in targets],
                TensorSpec("BF16", (E, rows)),
            ),
        )


def _whole(target: str, *shape: int) -> SourceTensor:
    """A bf16 tensor that keeps its shape."""
    spec = TensorSpec("BF16", shape)
    return SourceTensor(spec, shape[0], (Part(target, spec, 0, shape[0]),))


def _split_rows(targets: list[tuple[str, int]], width: tuple[int, ...]) -> SourceTensor:
    """A bf16 tensor whose rows belong to several targets, one after the other."""
    parts: list[Part] = []
    start = 0
    for name, rows in targets:
        parts.append(Part(name, TensorSpec("BF16", (rows, *width)), start, start + rows))
        start += rows
    return SourceTensor(TensorSpec("BF16", (start, *width)), start, tuple(parts))


def _interleaved(source: TensorSpec, targets: list[str], target: TensorSpec) -> SourceTensor:
    """Rows that belong to the targets in turn: gate, up, gate, up, ... (or all to one)."""
    rows = source.shape[0] * source.shape[1]
    parts = (Part(name, target, i, rows, len(targets)) for i, name in enumerate(targets))
    return SourceTensor(source, rows, tuple(parts))


def _same_name(name: str) -> str:
    return name


_HF_TABLE = {
    "embedding.weight": "model.embed_tokens.weight",
    "unembedding.weight": "lm_head.weight",
    "norm.scale": "model.norm.weight",
    "attn.out.": "self_attn.o_proj.",
    "attn.q.": "self_attn.q_proj.",
    "attn.k.": "self_attn.k_proj.",
    "attn.v.": "self_attn.v_proj.",
    "attn.sinks": "self_attn.sinks",
    "attn.norm.scale": "input_layernorm.weight",
    "mlp.norm.scale": "post_attention_layernorm.weight",
    "mlp.gate.": "mlp.router.",
    "mlp.mlp1_weight.": "mlp.experts.gate_up_proj_",
    "mlp.mlp2_weight.": "mlp.experts.down_proj_",
    "mlp.mlp1_bias": "mlp.experts.gate_up_proj_bias",
    "mlp.mlp2_bias": "mlp.experts.down_proj_bias",
}


def _hf_name(name: str) -> str:
    """Hugging Face's name of a tensor, from OpenAI's (`attn.q.` where OpenAI's is fused)."""
    prefix, local = "", name
    if name.startswith("block."):
        _, n, local = name.split(".", 2)
        prefix = f"model.layers.{n}."
    for ours, theirs in _HF_TABLE.items():
        if local.startswith(ours):
            return prefix + theirs + local.removeprefix(ours)
    raise AssertionError(f"no Hugging Face name for {name}")
