"""Random checkpoints in the published layouts, of any size: for tests and benchmarks.

The weights mean nothing, but they are scaled as a trained model's are, so that activations stay of
order one, routes differ from token to token and logits have a standard deviation of about 3.
Written row by row: a full-size 20b takes a few megabytes of memory.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gptoss_mlx.config import ModelConfig
from gptoss_mlx.convert.mxfp4 import SCALE_BIAS
from gptoss_mlx.convert.names import Layout, SourceTensor, TensorSpec, source_tensors
from gptoss_mlx.convert.published import GPT_OSS_20B, GPT_OSS_120B
from gptoss_mlx.convert.writer import ShardWriter

__all__ = ["GPT_OSS_20B", "GPT_OSS_120B", "to_bf16", "write_random_checkpoint"]

_CHUNK_BYTES = 8 << 20
_FP4_STD = 2.93  # of the sixteen E2M1 values, all equally likely


def write_random_checkpoint(
    folder: Path,
    config: ModelConfig,
    *,
    layout: Layout = "openai",
    seed: int = 0,
    shard_bytes: int = 1 << 62,
) -> None:
    """Write config.json and safetensors files with random weights into a new folder.

    Both layouts of one seed hold the same model only by accident: use one layout a test.
    """
    folder.mkdir(parents=True)
    tensors = source_tensors(config, layout)
    rng = np.random.default_rng(seed)
    specs = {name: tensor.spec for name, tensor in tensors.items()}
    with ShardWriter(folder, specs, shard_bytes) as writer:
        for name, tensor in tensors.items():
            offset = 0
            for data in _random_rows(name, tensor, rng):
                writer.write(name, offset, data)
                offset += len(data)
    raw = config.to_openai_dict() if layout == "openai" else _hf_config(config)
    (folder / "config.json").write_text(json.dumps(raw, indent=2))


def to_bf16(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """The bits of the nearest bfloat16 of finite floats, ties to even."""
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def _random_rows(name: str, tensor: SourceTensor, rng: np.random.Generator) -> Iterator[bytes]:
    make = _maker(name, tensor.spec, rng)
    step = max(1, _CHUNK_BYTES // tensor.row_bytes)
    for first in range(0, tensor.rows, step):
        yield make(min(step, tensor.rows - first) * tensor.row_bytes)


def _maker(name: str, spec: TensorSpec, rng: np.random.Generator) -> Callable[[int], bytes]:
    """A function from a number of bytes to that many bytes of such a tensor."""
    if name.endswith("blocks"):
        return rng.bytes
    if name.endswith("scales"):
        width = spec.shape[-1] * 32
        middle = SCALE_BIAS + round(math.log2(1 / (_FP4_STD * math.sqrt(width))))
        return lambda n: rng.integers(middle - 1, middle + 2, n, dtype=np.uint8).tobytes()
    mean, std = _moments(name, spec)

    def normal(nbytes: int) -> bytes:
        values = rng.standard_normal(nbytes // 2, dtype=np.float32)
        return to_bf16(mean + std * values).tobytes()

    return normal


def _moments(name: str, spec: TensorSpec) -> tuple[float, float]:
    if "norm" in name:
        return 1.0, 0.1
    if name.endswith("sinks"):
        return 0.0, 1.0
    if name.endswith("bias"):
        return 0.0, 0.2
    if name in ("embedding.weight", "model.embed_tokens.weight"):
        return 0.0, 1.0
    gain = 3.0 if name in ("unembedding.weight", "lm_head.weight") else 1.0
    return 0.0, gain / math.sqrt(spec.shape[-1])


def _hf_config(config: ModelConfig) -> dict[str, Any]:
    return {**config.to_hf_dict(), "quantization_config": {"quant_method": "mxfp4"}}
