"""What a sequence could reach at most: every token reads its weights, keys and values from memory.

The bandwidth is that of the chip by Apple's specification, where it is known, and as MLX reads a
large array here. On a CPU, where MLX reads with one core, the latter is a lower bound. It does not
know what was measured, nor batches: how many experts several sequences share depends on what they
say.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx

from gptoss_mlx.fit import decode_bytes, this_machine
from gptoss_mlx.memory import tensor_sizes
from gptoss_mlx.segment import KVBits
from gptoss_mlx.weights import read_checkpoint

__all__ = ["Bandwidth", "find_bandwidth", "measure_bandwidth", "token_bytes"]

_ARRAY = 1 << 30  # bytes: no cache holds it
_REPEATS = 5


@dataclass(frozen=True)
class Bandwidth:
    """Bytes a second. specified: of the chip that is named, None where it is not known."""

    measured: float
    specified: float | None = None
    chip: str = ""

    @property
    def best(self) -> float:
        """What shares are told of."""
        return self.specified or self.measured


def find_bandwidth() -> Bandwidth:
    """This machine's.

    Raises:
        UsageError: GPTOSS_MLX_MEMORY is no size.
    """
    measured, chips = measure_bandwidth(), this_machine().chips
    if len({chip.bandwidth for chip in chips}) != 1:
        return Bandwidth(measured)
    return Bandwidth(measured, chips[0].bandwidth * 1e9, chips[0].name)


def measure_bandwidth(nbytes: int = _ARRAY) -> float:
    """Bytes a second of the largest number in an array being found, at best."""
    array = mx.arange(nbytes // 4, dtype=mx.uint32)
    mx.eval(array)
    seconds = min(_seconds_to_read(array) for _ in range(_REPEATS))
    del array
    mx.clear_cache()
    return nbytes / seconds


def _seconds_to_read(array: mx.array) -> float:
    started = time.perf_counter()
    mx.eval(mx.max(array))
    return time.perf_counter() - started


def token_bytes(folder: Path, context: int, kv_bits: KVBits, itemsize: int) -> int:
    """Bytes that are read for one token after so many, of a checkpoint in MLX's layout.

    Args:
        folder: of the checkpoint.
        context: tokens before it.
        kv_bits: of keys and values in the full layers.
        itemsize: bytes of a number in the compute dtype.

    Raises:
        CheckpointError, UsageError: as `models.load`.
    """
    config, places = read_checkpoint(folder)
    sizes = tensor_sizes({name: at.spec for name, (_, at) in places.items()}, itemsize)
    return decode_bytes(config, sizes, context, kv_bits)
