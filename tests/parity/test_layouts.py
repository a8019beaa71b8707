"""OpenAI's layout and Hugging Face's of one model."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import mlx.core as mx
import numpy as np
import pytest

from .checkpoints import CASES, CheckpointOf, convert_weights, write_huggingface_twin

_NAMES = ["32-experts-64-tokens-seed-0", "128-experts-64-tokens-seed-0", "uneven-widths-320-tokens"]


@pytest.mark.parametrize("name", _NAMES)
def test_both_layouts_convert_to_the_same_bytes(
    checkpoint_of: CheckpointOf, tmp_path: Path, name: str
) -> None:
    """Every tensor comes out bit for bit the same, whichever of its two layouts a model came in."""
    case = CASES[name]
    checkpoint = checkpoint_of(case)
    write_huggingface_twin(checkpoint.openai, tmp_path / "huggingface", case.config)
    convert_weights(tmp_path / "huggingface", tmp_path / "mlx", "bf16")
    assert _tensors(tmp_path / "mlx") == _tensors(checkpoint.mlx)


def _tensors(folder: Path) -> dict[str, tuple[mx.Dtype, tuple[int, ...], bytes]]:
    tensors = cast("dict[str, mx.array]", mx.load(str(folder / "model-00001-of-00001.safetensors")))
    return {
        name: (array.dtype, array.shape, np.array(array.view(mx.uint8)).tobytes())
        for name, array in tensors.items()
    }
