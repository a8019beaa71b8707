"""What is to be measured of a model on this machine: what was wished, as far as it fits.

Contexts and batches that the memory plan does not permit are left out, and a note says so. Nothing
is loaded.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import mlx.core as mx

from gptoss_mlx.bench.roofline import token_bytes
from gptoss_mlx.bench.sides import SideName
from gptoss_mlx.bench.workload import Workload
from gptoss_mlx.config import read_config_file
from gptoss_mlx.errors import GptOssError, MemoryPlanError, UsageError
from gptoss_mlx.kernels import choice
from gptoss_mlx.library import variant_of
from gptoss_mlx.memory import EmbeddingChoice, Plan, Use
from gptoss_mlx.models import plan_for, resolve
from gptoss_mlx.segment import KVBits
from gptoss_mlx.vocabulary import NUM_ORDINARY
from gptoss_mlx.weights import read_checkpoint

__all__ = ["ModelFacts", "Planned", "Wish", "plan"]

_ON_GPU = ((512, 4096, 16_384), (1, 2, 4, 8), 64)  # contexts, batches, tokens
_ON_CPU = ((64, 512), (1, 4), 16)


@dataclass(frozen=True)
class Wish:
    """What is to be measured; None: what suits the device."""

    contexts: tuple[int, ...] | None = None
    batches: tuple[int, ...] | None = None
    tokens: int | None = None
    embedding: EmbeddingChoice = "auto"
    kv_bits: KVBits = 16


@dataclass(frozen=True)
class ModelFacts:
    """A checkpoint in a few words. variant: of its dense matrices. nbytes: of all tensors."""

    name: str
    layers: int
    experts: int
    variant: str
    nbytes: int


@dataclass(frozen=True)
class Planned:
    """A workload that fits. notes: what was left out. read_bytes: for a token, by side, context."""

    model: ModelFacts
    workload: Workload
    notes: tuple[str, ...]
    read_bytes: dict[SideName, dict[int, int]]


def plan(name: str, wish: Wish) -> Planned:
    """Decide what is measured of a model, as `models.load` names it.

    Raises:
        CheckpointError, UsageError: as `models.plan_for`.
        MemoryPlanError: no context that was wished fits.
    """
    folder = resolve(name)
    choice.setting()  # a wrong one is told before anything is run
    contexts, batches, tokens = _ON_GPU if _on_gpu() else _ON_CPU
    config, places = read_checkpoint(folder)
    wished = Workload(
        str(folder),
        min(config.vocab_size, NUM_ORDINARY),
        wish.contexts or contexts,
        wish.batches or batches,
        wish.tokens or tokens,
        wish.embedding,
        wish.kv_bits,
    )
    workload, notes = _fitting(wished)
    facts = ModelFacts(
        name if name == "demo" else folder.absolute().name,
        config.num_hidden_layers,
        config.num_experts,
        variant_of(read_config_file(folder / "config.json")),
        sum(at.spec.nbytes for _, at in places.values()),
    )
    return Planned(facts, workload, notes, _read_bytes(workload))


def _fitting(wished: Workload) -> tuple[Workload, tuple[str, ...]]:
    """As much of a workload as fits, and what was left out.

    Raises:
        GptOssError: no context fits.
    """
    contexts = {n: _problem(wished, wished.room(n), 1) for n in wished.contexts}
    fitting = tuple(context for context, problem in contexts.items() if problem is None)
    if not fitting:
        least = min(wished.contexts)
        _plan(wished, wished.room(least), 1).check()
        raise contexts[least] or AssertionError("it does not fit")
    workload = replace(wished, contexts=fitting)
    batches = {n: _problem(workload, workload.room_in_batch(n), n) for n in wished.batches}
    notes = [
        f"{what} {size:,} is left out: {problem}"
        for what, problems in (("context", contexts), ("batch", batches))
        for size, problem in problems.items()
        if problem is not None
    ]
    together = tuple(batch for batch, problem in batches.items() if problem is None)
    place = _plan(workload, workload.room(fitting[-1]), 1).embedding
    return replace(workload, batches=together, embedding=place), tuple(notes)


def _problem(workload: Workload, room: int, parallel: int) -> GptOssError | None:
    """Why so many sequences of so many tokens cannot be measured; None if they can."""
    each = f", for each of {parallel:,}" * (parallel > 1)
    needed = f"with what follows that is {room:,} tokens{each}, and"
    try:
        plan = _plan(workload, room, parallel)
    except GptOssError as error:  # longer than the model knows
        return UsageError(f"{needed} {error}")
    if plan.verdict == "fits":
        return None
    have = f"{plan.ceiling.nbytes / 2**30:.2f} GiB ({plan.ceiling.source})"
    why = plan.summary if plan.context else f"there is no room for them in {have}"
    return MemoryPlanError(f"{needed} {why}")


def _plan(workload: Workload, room: int, parallel: int) -> Plan:
    use = Use(room, parallel, embedding=workload.embedding, kv_bits=workload.kv_bits)
    return plan_for(workload.folder, use=use)


def _read_bytes(workload: Workload) -> dict[SideName, dict[int, int]]:
    """By side and context, for a token in the middle of what is decoded."""
    bits: dict[SideName, KVBits] = {"gptoss-mlx": workload.kv_bits, "mlx-lm": 16}
    folder, itemsize = Path(workload.folder), 2 if _on_gpu() else 4
    return {
        side: {
            context: token_bytes(folder, context + workload.tokens // 2, kv_bits, itemsize)
            for context in workload.contexts
        }
        for side, kv_bits in bits.items()
    }


def _on_gpu() -> bool:
    return mx.default_device() != mx.Device(mx.cpu)
