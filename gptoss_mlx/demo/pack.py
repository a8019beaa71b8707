"""From trained float32 parameters to OpenAI's original checkpoint, and from that to the asset.

Rows of the compact vocabulary are put where they belong among 201,088, the others are zero; experts
become MXFP4, all else bfloat16. It does not know how the parameters came about.
"""

from __future__ import annotations

import json
import lzma
import shutil
from pathlib import Path

import mlx.core as mx
import numpy as np

from gptoss_mlx.config import ModelConfig
from gptoss_mlx.convert import mxfp4
from gptoss_mlx.convert.names import source_tensors
from gptoss_mlx.demo import CONFIG, PACKED

__all__ = ["compress", "to_original", "write_original"]


def to_original(
    parameters: dict[str, mx.array], config: ModelConfig, vocabulary: list[int]
) -> dict[str, mx.array]:
    """The tensors of an original checkpoint, under the same names."""
    tensors: dict[str, mx.array] = {}
    for name, value in parameters.items():
        if name.endswith(("mlp1_weight", "mlp2_weight")):
            blocks, scales = mxfp4.encode(np.asarray(value, dtype=np.float32))
            tensors[f"{name}.blocks"], tensors[f"{name}.scales"] = (
                mx.array(blocks),
                mx.array(scales),
            )
        elif "embedding" in name:
            table = mx.zeros((config.vocab_size, config.hidden_size), mx.bfloat16)
            table[mx.array(vocabulary)] = value.astype(mx.bfloat16)
            tensors[name] = table
        else:
            tensors[name] = value.astype(mx.bfloat16)
    return tensors


def write_original(folder: Path, tensors: dict[str, mx.array], config: ModelConfig) -> None:
    """Write config.json and model.safetensors."""
    for name, source in source_tensors(config, "openai").items():
        assert tensors[name].shape == source.spec.shape, name
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(config.to_openai_dict(), indent=2)
    (folder / CONFIG).write_text(text + "\n", encoding="utf-8")
    mx.save_safetensors(str(folder / "model.safetensors"), tensors)


def compress(folder: Path) -> Path:
    """Write the folder's model.safetensors.xz, the same bytes every time."""
    packed = folder / PACKED
    with (
        (folder / "model.safetensors").open("rb") as source,
        lzma.open(packed, "wb", preset=9 | lzma.PRESET_EXTREME) as target,
    ):
        shutil.copyfileobj(source, target, 1 << 20)
    return packed
