"""What is measured on which device, and what is left out because it does not fit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from gptoss_mlx.bench.planning import Wish, plan
from gptoss_mlx.bench.roofline import token_bytes
from gptoss_mlx.ceiling import VARIABLE
from gptoss_mlx.errors import MemoryPlanError, UsageError
from gptoss_mlx.models import resolve


@pytest.fixture(autouse=True)
def memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Enough for the demo, and for some context."""
    monkeypatch.setenv(VARIABLE, "1GiB")


def test_what_suits_a_cpu() -> None:
    """Without wishes: little, and all of it fits."""
    found = plan("demo", Wish())
    assert found.workload.contexts == (64, 512)
    assert found.workload.batches == (1, 4)
    assert found.workload.vocabulary == 199_998  # no special tokens
    assert found.notes == ()
    assert replace(found.model, nbytes=0) == type(found.model)("demo", 4, 8, "q8", 0)
    assert found.model.nbytes == pytest.approx(Path(_weights()).stat().st_size, rel=0.01)
    assert found.read_bytes["gptoss-mlx"] == {
        context: token_bytes(resolve("demo"), context + 8, 16, 4) for context in (64, 512)
    }  # in the middle of 16 tokens


def _weights() -> Path:
    [path] = resolve("demo").glob("*.safetensors")
    return path


def test_a_folder_is_called_by_its_name() -> None:
    """Nobody wants their folders in an issue."""
    folder = resolve("demo")
    assert plan(str(folder), Wish()).model.name == folder.name


def test_what_does_not_fit_is_left_out() -> None:
    """Contexts beyond memory or beyond the model, and batches, each with a note why."""
    found = plan("demo", Wish((64, 100_000, 131_072), (1, 200), 16))
    assert found.workload.contexts == (64,)
    assert found.workload.batches == (1,)
    memory, model, batch = found.notes
    assert memory.startswith("context 100,000 is left out: ")
    assert "of 100,049 tokens of context fit in 1.00 GiB (GPTOSS_MLX_MEMORY)" in memory
    assert model.startswith("context 131,072 is left out: with what follows that is 131,121 tokens")
    assert "the context must lie in 1..131,072" in model
    assert batch.startswith("batch 200 is left out: with what follows that is 12,880 tokens, for ")
    assert "for each of 200, and there is no room for them in 1.00 GiB" in batch


def test_nothing_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The plan's own refusal; or that of the first context."""
    with pytest.raises(MemoryPlanError, match=r"of 100,049 tokens of context fit"):
        plan("demo", Wish((100_000,), (1,), 16))
    with pytest.raises(UsageError, match=r"1\.\.131,072"):
        plan("demo", Wish((200_000,), (1,), 16))
    monkeypatch.setenv(VARIABLE, "100MiB")
    with pytest.raises(MemoryPlanError, match="the model needs"):
        plan("demo", Wish())


def test_narrow_keys_are_read_by_ours_only() -> None:
    """With 8 bits a token reads less; mlx-lm keeps 16."""
    read = plan("demo", Wish((512,), (1,), 16, kv_bits=8)).read_bytes
    assert read["gptoss-mlx"][512] < read["mlx-lm"][512]
    assert read["mlx-lm"] == plan("demo", Wish((512,), (1,), 16)).read_bytes["gptoss-mlx"]
