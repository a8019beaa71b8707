"""Stock mlx-lm's gpt-oss, as it is and with its rotary frequencies put right."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx_lm
import numpy as np
from numpy.typing import NDArray

from gptoss_mlx.config import ModelConfig
from gptoss_mlx.model import yarn_frequencies

from .checkpoints import Case

__all__ = ["correct_frequencies", "load_stock_model", "stock_logits"]

_stock: Any = mlx_lm  # its annotations are partial


def load_stock_model(folder: Path) -> Any:
    """mlx-lm's model for a conversion, its bf16 parameters made float32."""
    model, _ = _stock.utils.load_model(folder)
    model.set_dtype(mx.float32)
    return model


def correct_frequencies(model: Any, config: ModelConfig) -> None:
    """Replace its rotary periods by those of YaRN with unrounded bounds."""
    frequencies, _ = yarn_frequencies(config)
    for layer in model.layers:
        layer.self_attn.rope._freqs = mx.array(1 / frequencies)


def stock_logits(model: Any, case: Case) -> NDArray[np.float32]:
    """Its logits for a case's prompt (T, V)."""
    return np.asarray(model(mx.array(case.ids[None]))[0], dtype=np.float32)
