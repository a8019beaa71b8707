"""Checkpoints of full size that take no space: their headers are real, their data are holes."""

from __future__ import annotations

import json
from pathlib import Path

from gptoss_mlx.config import ModelConfig
from gptoss_mlx.convert import Dense
from gptoss_mlx.convert.conversion import target_tensors
from gptoss_mlx.convert.names import source_tensors
from gptoss_mlx.convert.writer import SHARD_BYTES, ShardWriter

__all__ = ["write_converted_headers", "write_source_headers"]


def write_converted_headers(folder: Path, config: ModelConfig, dense: Dense) -> Path:
    """What `convert` writes, as far as a plan reads it."""
    folder.mkdir(parents=True)
    with ShardWriter(folder, target_tensors(source_tensors(config, "openai"), dense), SHARD_BYTES):
        pass
    quantization = {"group_size": 32, "bits": 4, "mode": "mxfp4"}
    (folder / "config.json").write_text(
        json.dumps({**config.to_hf_dict(), "quantization": quantization})
    )
    return folder


def write_source_headers(folder: Path, config: ModelConfig) -> Path:
    """OpenAI's layout."""
    folder.mkdir(parents=True)
    tensors = source_tensors(config, "openai")
    with ShardWriter(folder, {name: at.spec for name, at in tensors.items()}, SHARD_BYTES):
        pass
    (folder / "config.json").write_text(json.dumps(config.to_openai_dict()))
    return folder
