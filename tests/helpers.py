"""Small models that several test modules share: a random one, and one that replays a script."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from unittest.mock import patch

import mlx.core as mx
import numpy as np
from checkpoints import TINY
from numpy.typing import NDArray

from gptoss_mlx.cache import Cache
from gptoss_mlx.config import ModelConfig
from gptoss_mlx.convert import Dense, conversion, convert
from gptoss_mlx.convert.synthetic import write_random_checkpoint
from gptoss_mlx.model import Model, load_model
from gptoss_mlx.tokenizer import ENDOFTEXT, VOCAB_SIZE

__all__ = ["ReplayModel", "array", "random_model", "write_converted"]


def write_converted(folder: Path, dense: Dense = "bf16", config: ModelConfig = TINY) -> Path:
    """A random checkpoint in the MLX layout, somewhere below `folder`."""
    with patch.object(conversion, "add_tokenizer"):  # it takes seconds, and nothing here reads it
        write_random_checkpoint(folder / "original", config)
        convert(folder / "original", folder / "mlx", dense=dense)
    return folder / "mlx"


@cache
def random_model(config: ModelConfig = TINY, dense: Dense = "bf16") -> Model:
    """A model with random weights, in memory and in float32."""
    with tempfile.TemporaryDirectory() as folder:
        return load_model(write_converted(Path(folder), dense, config), mx.float32)


class ReplayModel(Model):
    """Stands for a model that answers each prompt with the next of its scripts, then falls silent.

    A script is ids; whatever the temperature, they are what is drawn. `prompts` and `fed` have, for
    each generation, the ids that the model was given before it was first asked for logits, and all.
    """

    def __init__(self, *scripts: Sequence[int], max_context_length: int = 1 << 16) -> None:
        self.config = replace(
            TINY, vocab_size=VOCAB_SIZE, initial_context_length=max_context_length // 32
        )
        self.fed: list[list[int]] = []
        self.prompts: list[list[int]] = []
        self._scripts = list(scripts)
        self._script: list[int] = []

    def new_cache(self) -> Cache:
        """Begin the next script."""
        self.fed.append([])
        self._script = list(self._scripts.pop(0))
        return Cache(self.config)

    def hidden_states(self, ids: mx.array, cache: Cache | None = None) -> mx.array:
        """ids (1, T) -> zeros (1, T, 1)."""
        self.fed[-1] += [int(i) for i in array(ids)[0]]
        if cache is not None:
            cache.offset += ids.shape[-1]
        return mx.zeros((*ids.shape, 1))

    def logits(self, x: mx.array) -> mx.array:
        """(..., 1) -> logits (..., V) that leave only the script's next id."""
        if len(self.prompts) < len(self.fed):
            self.prompts.append(list(self.fed[-1]))
        row = mx.full((VOCAB_SIZE,), -mx.inf)
        row[self.next_id()] = 0.0
        return mx.broadcast_to(row, (*x.shape[:-1], VOCAB_SIZE))

    def next_id(self) -> int:
        """What the script says next."""
        return self._script.pop(0) if self._script else ENDOFTEXT


def array(x: mx.array) -> NDArray[np.float64]:
    """Any array's values, exactly, in float64."""
    return np.array(x.astype(mx.float32) if x.dtype == mx.bfloat16 else x).astype(np.float64)
