"""A prompt in one step, in chunks and token by token: the same logits."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest

from gptoss_mlx.model import load_model

from .checkpoints import CASES, CheckpointOf, logits_of
from .comparison import Expected, assert_parity

pytestmark = pytest.mark.slow

_NAMES = ["32-experts-320-tokens-seed-4", "128-experts-320-tokens-seed-4"]


@pytest.mark.parametrize("name", _NAMES)
def test_chunks_give_the_logits_of_the_whole(checkpoint_of: CheckpointOf, name: str) -> None:
    """Steps of 1, 7, 64, 128, 200 and all tokens, with a cache, give what one without does."""
    case = CASES[name]
    model = load_model(checkpoint_of(case).mlx, mx.float32)
    whole = Expected.of(logits_of(model, case.ids))
    for chunk in (1, 7, 64, 128, 200, case.tokens):
        assert_parity(logits_of(model, case.ids, chunk), whole)


def test_sequences_of_a_batch_do_not_mix(checkpoint_of: CheckpointOf) -> None:
    """Two prompts in one batch, whole or in chunks, give each the logits it gets alone."""
    case = CASES[_NAMES[0]]
    model = load_model(checkpoint_of(case).mlx, mx.float32)
    prompts = np.stack([case.ids, case.ids[::-1]])[:, :200]
    alone = [Expected.of(logits_of(model, prompt)) for prompt in prompts]
    for chunk in (None, 1, 7, 64, 128):
        for logits, expected in zip(logits_of(model, prompts, chunk), alone, strict=True):
            assert_parity(logits, expected)
