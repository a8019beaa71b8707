"""Stock mlx-lm on our conversions: it loads them, and differs by its rotary frequencies only.

It rounds the bounds of YaRN's ramp to whole pairs, which gpt-oss was not trained with
(truncate=false): 9 of 32 frequencies are off. With the exact ones in their place its logits are
ours.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import mlx.core as mx
import mlx_lm
import numpy as np
import pytest

from gptoss_mlx import demo
from gptoss_mlx.config import SamplingParams
from gptoss_mlx.convert import Dense
from gptoss_mlx.engine import Engine
from gptoss_mlx.harmony import Message, Setup, render
from gptoss_mlx.model import load_model, yarn_frequencies
from gptoss_mlx.models import resolve
from gptoss_mlx.tokenizer import STOP_TOKENS, load_tokenizer

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
    correct_frequencies(stock, case.config)
    assert_parity(stock_logits(stock, case), ours)


def test_corrected_mlx_lm_is_the_references(checkpoint_of: CheckpointOf) -> None:
    """From the references too mlx-lm is far off, and within the bounds once corrected."""
    checkpoint = checkpoint_of(_CASE)
    stock = load_stock_model(checkpoint.mlx)
    rounded = stock_logits(stock, _CASE)
    correct_frequencies(stock, _CASE.config)
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


@pytest.mark.parametrize("dense", ["bf16", "q8", "q4"])
def test_the_converted_demo_says_the_same_in_mlx_lm(tmp_path: Path, dense: Dense) -> None:
    """Greedy answers of the trained demo: the same ids from both, up to the stop id."""
    convert_weights(demo.unpack(tmp_path / "original"), tmp_path / "mlx", dense)
    ours = load_model(tmp_path / "mlx", mx.float32)
    stock = load_stock_model(tmp_path / "mlx")
    correct_frequencies(stock, ours.config)
    tokenizer = load_tokenizer()
    for question in ("What is 2 + 3?", "What is the capital of France?"):
        prompt = render(Setup(date="2026-11-21"), [Message("user", question)], tokenizer)
        greedy = SamplingParams(temperature=0, max_tokens=60)
        said = list(Engine(ours).generate(prompt, greedy, stop=STOP_TOKENS))
        assert _greedy_ids(stock, prompt, len(said)) == said


def test_mlx_lm_opens_a_conversion_with_its_tokenizer() -> None:
    """`mlx_lm.load` takes the folder as it is, text and all."""
    stock: Any = mlx_lm  # its annotations are partial
    model, tokenizer = stock.load(str(resolve("demo")))
    assert len(model.layers) == 4
    assert tokenizer.decode(tokenizer.encode("What is 2 + 2?")) == "What is 2 + 2?"


def _greedy_ids(model: Any, prompt: list[int], count: int) -> list[int]:
    """The ids of the largest logits, by mlx-lm with its own cache."""
    cache, ids = model.make_cache(), mx.array([prompt])
    found: list[int] = []
    while len(found) < count:
        best = mx.argmax(model(ids, cache=cache)[0, -1]).item()
        found.append(cast("int", best))
        ids = mx.array([found[-1:]])
    return found
