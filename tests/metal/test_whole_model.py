"""A model whose kernels all run on the host gives what it gives without them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest
from helpers import array, random_model

from gptoss_mlx import load
from gptoss_mlx.convert import Dense
from gptoss_mlx.convert.synthetic import GPT_OSS_20B
from gptoss_mlx.kernels.choice import VARIABLE
from gptoss_mlx.model import Model

from .inputs import Floats

pytestmark = pytest.mark.usefixtures("host")

SMALL = replace(  # a sliding layer, whose window is 128 here, too, and a full one
    GPT_OSS_20B,
    num_hidden_layers=2,
    vocab_size=260,
    hidden_size=128,
    intermediate_size=64,
    num_experts=8,
    num_attention_heads=8,
    num_key_value_heads=1,
)
LIMIT = 1e-4  # of the largest logit


@pytest.mark.parametrize("prompt", [1, 2, 5, 33, 300])
def test_random_model_after_prompts(monkeypatch: pytest.MonkeyPatch, prompt: int) -> None:
    """All logits of a prompt, and of two tokens after it."""
    assert_equal(monkeypatch, random_model(SMALL, "q8"), [prompt, 1, 1])


@pytest.mark.parametrize("dense", ["bf16", "q4"])
def test_formats(monkeypatch: pytest.MonkeyPatch, dense: Dense) -> None:
    """The dense matrices in the other formats."""
    assert_equal(monkeypatch, random_model(SMALL, dense), [5, 1, 1])


def test_decode_across_the_window(monkeypatch: pytest.MonkeyPatch) -> None:
    """Token by token from where the window of 128 is not full to where it moves."""
    assert_equal(monkeypatch, random_model(SMALL, "q8"), [125, *[1] * 6])


def test_demo(monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo, whose weights are trained."""
    assert_equal(monkeypatch, load("demo", dtype=mx.float32), [40, 1])


def assert_equal(patch: pytest.MonkeyPatch, model: Model, lengths: Sequence[int]) -> None:
    """The logits of so many tokens after each other are the same with all kernels and with none."""
    ids = np.random.default_rng(0).integers(
        0, min(model.config.vocab_size, 5000), (1, sum(lengths))
    )
    patch.setenv(VARIABLE, "off")
    expected = list(_logits(model, ids, lengths))
    patch.setenv(VARIABLE, "all")
    for ours, twins in zip(_logits(model, ids, lengths), expected, strict=True):
        assert np.abs(ours - twins).max() <= LIMIT * np.abs(twins).max()


def _logits(model: Model, ids: np.ndarray, lengths: Sequence[int]) -> Iterator[Floats]:
    cache, start = model.new_cache(), 0
    for length in lengths:
        yield array(model(mx.array(ids[:, start : start + length]), cache))
        start += length
