"""Small models that several test modules share: a random one, and one that replays a script."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Sequence
from dataclasses import replace
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


@functools.cache
def random_model(config: ModelConfig = TINY, dense: Dense = "bf16") -> Model:
    """A model with random weights, in memory and in float32."""
    with tempfile.TemporaryDirectory() as folder:
        return load_model(write_converted(Path(folder), dense, config), mx.float32)


class ReplayModel(Model):
    """Stands for a model that answers each prompt with the next of its scripts, then falls silent.

    A script is ids; whatever the temperature, they are what is drawn. Keys are the ids themselves,
    so the model sees which tokens its caches hold: `prompts` and `seen` have, for each generation,
    the ids that it saw when it was first asked for logits, and at last.
    """

    def __init__(self, *scripts: Sequence[int], max_context_length: int = 1 << 16) -> None:
        self.config = replace(
            TINY, vocab_size=VOCAB_SIZE, initial_context_length=max_context_length // 32
        )
        self.dtype = mx.float32
        self.seen: list[list[int]] = []
        self.prompts: dict[int, list[int]] = {}
        self.scripts = scripts
        self._caches: list[Cache] = []  # in the order of their generations

    def hidden_states(self, ids: mx.array, *caches: Cache) -> mx.array:
        """ids (B, T) -> (B, T, 2): which script, and how many tokens were seen there."""
        rows: list[list[tuple[int, int]]] = []
        for row, cache in zip(array(ids).astype(int).tolist(), caches, strict=True):
            if cache not in self._caches:
                self._caches.append(cache)
                self.seen.append([])
            number, T = self._caches.index(cache), len(row)
            self.seen[number] = self._tokens_after(row, cache)
            cache.advance(T)
            rows.append([(number, cache.offset - T + i + 1) for i in range(T)])
        return mx.array(rows, mx.float32)

    def _tokens_after(self, row: list[int], cache: Cache) -> list[int]:
        """Append a row's ids to every layer; all that a full layer holds then."""
        shape = (1, self.config.num_key_value_heads, len(row), self.config.head_dim)
        keys = mx.broadcast_to(mx.array(row, mx.float32)[None, None, :, None], shape)
        parts = [layer.append(keys, keys) for layer in cache.layers][1]
        return [int(i) for part in parts for i in array(part.keys)[0, 0, :, 0]]

    def logits(self, x: mx.array) -> mx.array:
        """(..., 2) -> logits (..., V) that leave only the script's next id."""
        rows = np.full((x.size // 2, VOCAB_SIZE), -np.inf, np.float32)
        places = [(int(number), int(seen)) for number, seen in array(x).reshape(-1, 2)]
        for row, (number, seen) in zip(rows, places, strict=True):
            prompt = self.prompts.setdefault(number, self.seen[number][:seen])
            row[self.next_id(number, seen - len(prompt))] = 0
        return mx.array(rows).reshape(*x.shape[:-1], VOCAB_SIZE)

    def next_id(self, number: int, n: int) -> int:
        """What a script says after n ids."""
        script = self.scripts[number]
        return script[n] if n < len(script) else ENDOFTEXT


def array(x: mx.array) -> NDArray[np.float64]:
    """Any array's values, exactly, in float64."""
    return np.array(x.astype(mx.float32) if x.dtype == mx.bfloat16 else x).astype(np.float64)
