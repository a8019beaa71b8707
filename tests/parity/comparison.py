"""Two sets of logits -> how far they are apart, and whether that is parity.

The two references themselves differ by 5e-5 on the models of this suite. The bounds leave room for
another order of summation, and for nothing else: the smallest known bug, a wrong epsilon in
RMSNorm, moves the logits by a relative 2.7e-5.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["MAX_DIFFERENCE", "MAX_RELATIVE_RMS", "Expected", "Figures", "assert_parity", "compare"]

MAX_DIFFERENCE = 5e-4  # of logits whose standard deviation is 3
MAX_RELATIVE_RMS = 1e-5


@dataclass(frozen=True)
class Expected:
    """The logits of a reference: of every position the top-1, of some positions some columns."""

    positions: NDArray[np.int64]  # (P,)
    columns: NDArray[np.int64]  # (C,)
    logits: NDArray[np.float32]  # (P, C)
    top1: NDArray[np.int64]  # (N, 2): position and id, several a position where they tie exactly

    @classmethod
    def of(
        cls,
        logits: NDArray[np.float32],
        positions: NDArray[np.int64] | None = None,
        columns: NDArray[np.int64] | None = None,
    ) -> Expected:
        """From the logits (T, V), keeping some positions and columns, or all."""
        T, V = logits.shape
        rows = np.arange(T, dtype=np.int64) if positions is None else positions
        ids = np.arange(V, dtype=np.int64) if columns is None else columns
        top1 = np.argwhere(logits == logits.max(axis=-1, keepdims=True))
        return cls(rows, ids, logits[np.ix_(rows, ids)], top1)


@dataclass(frozen=True)
class Figures:
    """How far logits are from those expected."""

    largest: float  # difference of one logit
    mean: float
    relative_rms: float  # of the differences, by that of the logits
    top1: float  # share of the positions with the reference's most likely token
    first_position: int | None  # of a difference above MAX_DIFFERENCE

    @property
    def violations(self) -> list[str]:
        """What is against parity; nothing if it holds. NaN is against it."""
        bounds = {
            f"largest difference {self.largest:.2g}, first at position {self.first_position}": (
                self.largest <= MAX_DIFFERENCE
            ),
            f"relative RMS {self.relative_rms:.2g}": self.relative_rms <= MAX_RELATIVE_RMS,
            f"same top-1 at {self.top1:.2%} of the positions": self.top1 == 1,
        }
        return [text for text, holds in bounds.items() if not holds]


def compare(logits: NDArray[np.float32], expected: Expected) -> Figures:
    """The figures of logits (T, V)."""
    picked = logits[np.ix_(expected.positions, expected.columns)].astype(np.float64)
    difference = np.abs(picked - expected.logits)
    apart = ~(difference <= MAX_DIFFERENCE).all(axis=-1)
    V = logits.shape[-1]
    best = np.arange(len(logits)) * V + logits.argmax(axis=-1)
    return Figures(
        largest=float(difference.max()),
        mean=float(difference.mean()),
        relative_rms=_rms(difference) / _rms(expected.logits),
        top1=float(np.isin(best, expected.top1 @ [V, 1]).mean()),
        first_position=int(expected.positions[apart][0]) if apart.any() else None,
    )


def assert_parity(logits: NDArray[np.float32], expected: Expected) -> None:
    """Fail unless the logits (T, V) are the reference's, up to the order of summation."""
    violations = compare(logits, expected).violations
    assert not violations, "no parity: " + "; ".join(violations)


def _rms(values: NDArray[np.floating]) -> float:
    return float(np.sqrt(np.mean(np.square(values, dtype=np.float64))))
