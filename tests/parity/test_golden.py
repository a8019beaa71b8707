"""Our logits against what the references gave, where these are not installed."""

from __future__ import annotations

import mlx.core as mx
import pytest

from gptoss_mlx.model import load_model

from .checkpoints import CASES, Case, CheckpointOf, logits_of
from .comparison import assert_parity
from .golden import REFERENCES, load_golden

_CHUNK = 512  # a longer prompt comes in chunks: on a CPU, one step over thousands of tokens is slow


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_logits_are_those_of_both_references(checkpoint_of: CheckpointOf, case: Case) -> None:
    """The model gives the logits that OpenAI's code and transformers gave for the same weights."""
    checkpoint = checkpoint_of(case)
    model = load_model(checkpoint.mlx, mx.float32)
    logits = logits_of(model, case.ids, _CHUNK if case.tokens > _CHUNK else None)
    for reference in REFERENCES:
        assert_parity(logits, load_golden(checkpoint, reference))
