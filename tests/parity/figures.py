"""Print how far the implementations are from each other; the references must be installed.

python -m tests.parity.figures
"""

from __future__ import annotations

import sys
import tempfile
from itertools import combinations
from pathlib import Path

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from gptoss_mlx.model import load_model

from .checkpoints import CASES, Case, logits_of, write_checkpoint, write_huggingface_twin
from .comparison import Expected, compare
from .mlx_lm_model import correct_frequencies, load_stock_model, stock_logits
from .references import openai_logits, transformers_logits


def main() -> None:
    """Every pair of implementations, on every case."""
    sys.stdout.write("| case | pair | max | mean | relRMS | top-1 |\n|---|---|---|---|---|---|\n")
    for case in CASES.values():
        for (one, expected), (other, logits) in combinations(_all_logits(case).items(), 2):
            figures = compare(logits, Expected.of(expected))
            sys.stdout.write(
                f"| {case.name} | {one} / {other} | {figures.largest:.1e} | {figures.mean:.1e} "
                f"| {figures.relative_rms:.1e} | {figures.top1:.2%} |\n"
            )
            sys.stdout.flush()


def _all_logits(case: Case) -> dict[str, NDArray[np.float32]]:
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = write_checkpoint(Path(folder), case)
        twin = Path(folder) / "huggingface"
        write_huggingface_twin(checkpoint.openai, twin, case.config)
        ours = logits_of(load_model(checkpoint.mlx, mx.float32), case.ids)
        mlx_lm = load_stock_model(checkpoint.mlx)
        stock = stock_logits(mlx_lm, case)
        correct_frequencies(mlx_lm, case.config)
        return {
            "OpenAI": openai_logits(checkpoint.openai, case.ids),
            "transformers": transformers_logits(twin, case.ids),
            "gptoss-mlx": ours,
            "mlx-lm corrected": stock_logits(mlx_lm, case),
            "mlx-lm stock": stock,
        }


if __name__ == "__main__":
    main()
