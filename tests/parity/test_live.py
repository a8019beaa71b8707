"""Our logits against OpenAI's torch code and transformers, run here and now on the same weights."""

from __future__ import annotations

from pathlib import Path

import mlx.core as mx
import pytest

from gptoss_mlx.model import load_model

from .checkpoints import CASES, Case, CheckpointOf, logits_of, write_huggingface_twin
from .comparison import Expected, assert_parity

references = pytest.importorskip(
    f"{__package__}.references",
    reason="torch, gpt-oss and transformers are optional: `make parity`",
)

pytestmark = pytest.mark.parity


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_logits_are_those_of_both_references(
    checkpoint_of: CheckpointOf, tmp_path: Path, case: Case
) -> None:
    """Ours in one step are OpenAI's and transformers', at every position and in every column."""
    checkpoint = checkpoint_of(case)
    twin = tmp_path / "huggingface"
    write_huggingface_twin(checkpoint.openai, twin, case.config)
    logits = logits_of(load_model(checkpoint.mlx, mx.float32), case.ids)
    assert_parity(logits, Expected.of(references.openai_logits(checkpoint.openai, case.ids)))
    assert_parity(logits, Expected.of(references.transformers_logits(twin, case.ids)))
