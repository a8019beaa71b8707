"""Stock mlx-lm on our conversions: it loads them, and differs by its rotary frequencies only.

It rounds the bounds of YaRN's ramp to whole pairs, which gpt-oss was not trained with
(truncate=false): 9 of 32 frequencies are off. With the exact ones in their place its logits are
ours.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx_lm
import numpy as np
import pytest

from gptoss_mlx.convert import Dense, convert
from gptoss_mlx.model import load_model, yarn_frequencies

from .checkpoints import CASES, CheckpointOf, convert_weights, logits_of
from .comparison import Expected, assert_parity, compare
from .golden import REFERENCES, load_golden
from .mlx_lm_model import correct_frequencies, load_stock_model, stock_logits

_CASE = CASES["32-experts-320-tokens-seed-4"]
_FAR = 0.5  # a difference of logits that no rounding explains


@pytest.mark.parametrize(("dense", "experts"), [("bf16", 128), ("q8", 32), ("q8", 128), ("q4", 32)])
def test_stock_mlx_lm_differs_by_its_frequencies_only(
    checkpoint_of: CheckpointOf, tmp_path: Path, dense: Dense, experts: int
) -> None:
    """Its logits are far from ours, and equal to ours once its frequencies are corrected."""
    case = CASES[f"{experts}-experts-320-tokens-seed-4"]
    convert_weights(checkpoint_of(case).openai, tmp_path / "mlx", dense)
    ours = Expected.of(logits_of(load_model(tmp_path / "mlx", mx.float32), case.ids))
    stock = load_stock_model(tmp_path / "mlx")
    assert compare(stock_logits(stock, case), ours).largest > _FAR
    correct_frequencies(stock, case)
    assert_parity(stock_logits(stock, case), ours)


def test_corrected_mlx_lm_is_the_references(checkpoint_of: CheckpointOf) -> None:
    """From the references too mlx-lm is far off, and within the bounds once corrected."""
    checkpoint = checkpoint_of(_CASE)
    stock = load_stock_model(checkpoint.mlx)
    rounded = stock_logits(stock, _CASE)
    correct_frequencies(stock, _CASE)
    corrected = stock_logits(stock, _CASE)
    for reference in REFERENCES:
        expected = load_golden(checkpoint, reference)
        assert compare(rounded, expected).largest > _FAR
        assert_parity(corrected, expected)


def test_nine_frequencies_are_off(checkpoint_of: CheckpointOf) -> None:
    """Of mlx-lm's 32 frequencies 9 are not ours, by up to 76%; the others are, up to rounding."""
    stock = load_stock_model(checkpoint_of(_CASE).mlx)
    theirs = 1 / np.asarray(stock.layers[0].self_attn.rope._freqs, dtype=np.float64)
    ours, _ = yarn_frequencies(_CASE.config)
    off = np.abs(theirs / ours - 1)
    assert (off > 1e-6).sum() == 9
    assert off.max() == pytest.approx(0.76, abs=0.01)


def test_mlx_lm_opens_a_conversion_with_its_tokenizer(
    checkpoint_of: CheckpointOf, tmp_path: Path
) -> None:
    """`mlx_lm.load` takes the folder as it is, text and all."""
    convert(checkpoint_of(_CASE).openai, tmp_path / "mlx", dense="q8")
    stock: Any = mlx_lm  # its annotations are partial
    model, tokenizer = stock.load(str(tmp_path / "mlx"))
    assert len(model.layers) == _CASE.config.num_hidden_layers
    assert tokenizer.decode(tokenizer.encode("What is 2 + 2?")) == "What is 2 + 2?"
