"""The golden files: what the references gave for each case, in part, and for which checkpoint.

One compressed .npz a case, of tens of kilobytes: the logits at some positions (those around the
window's edge among them) and some columns, and the top-1 of every position.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .checkpoints import Case, Checkpoint
from .comparison import Expected

__all__ = ["REFERENCES", "load_golden", "sample", "save_golden"]

REFERENCES = ("openai", "transformers")
_FOLDER = Path(__file__).parent / "golden"
_EDGES = (0, 1, 2, 63, 126, 127, 128, 129, 130, 255, 256)  # of windows, of 128
_SPREAD_POSITIONS = 32
_SPREAD_COLUMNS = 128


def sample(logits: NDArray[np.float32]) -> Expected:
    """The part of logits (T, V) that a golden file keeps."""
    T, V = logits.shape
    edges = [p for p in _EDGES if p < T]
    positions = np.union1d(_spread(T, _SPREAD_POSITIONS), edges)
    return Expected.of(logits, positions, _spread(V, _SPREAD_COLUMNS))


def save_golden(checkpoint: Checkpoint, expected: dict[str, Expected]) -> None:
    """Write the golden file of a case; `expected` has an entry for each of REFERENCES."""
    arrays = {
        f"{reference}.{name}": array
        for reference, part in expected.items()
        for name, array in vars(part).items()
    }
    np.savez_compressed(_path(checkpoint.case), sha256=np.array(checkpoint.sha256), **arrays)


def load_golden(checkpoint: Checkpoint, reference: str) -> Expected:
    """What a reference gave for a case.

    Fails when the checkpoint is not the one the reference ran on: the generator of random
    checkpoints has changed, and the golden files must be made again.
    """
    with np.load(_path(checkpoint.case)) as golden:
        assert str(golden["sha256"]) == checkpoint.sha256, (
            "write_random_checkpoint no longer gives the bytes that the golden files were made "
            "from: run python -m tests.parity.make_golden"
        )
        fields = ("positions", "columns", "logits", "top1")
        return Expected(*(golden[f"{reference}.{name}"] for name in fields))


def _spread(size: int, count: int) -> NDArray[np.int64]:
    """Indices from the first to the last, evenly."""
    return np.arange(count, dtype=np.int64) * (size - 1) // (count - 1)


def _path(case: Case) -> Path:
    return _FOLDER / f"{case.name}.npz"
