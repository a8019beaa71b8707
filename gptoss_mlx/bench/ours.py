"""This package, through the engine, as `chat` and `serve` use it.

Every conversation and every batch has an engine of its own, which has nothing cached. Memory is
planned for the longest context, as for any other use.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from gptoss_mlx.bench.sides import Completion, Ids
from gptoss_mlx.bench.workload import WAIT, Workload
from gptoss_mlx.config import SamplingParams
from gptoss_mlx.engine import Engine
from gptoss_mlx.kernels import choice
from gptoss_mlx.memory import Use
from gptoss_mlx.models import load, plan_for
from gptoss_mlx.segment import KVBits

__all__ = ["Ours", "kernels_in_use"]


class Ours:
    """The model of a workload, loaded.

    Raises:
        CheckpointError, MemoryPlanError, UsageError: as `models.load`. Completing raises
            EngineError where the model computes no numbers, because its checkpoint is broken.
    """

    def __init__(self, workload: Workload) -> None:
        use = Use(workload.longest, embedding=workload.embedding, kv_bits=workload.kv_bits)
        self._plan = plan_for(workload.folder, use=use)
        self._kv_bits: KVBits = workload.kv_bits
        self.model = load(workload.folder, use=use)
        self.dtype = str(self.model.dtype).rpartition(".")[2]
        self.kernels = kernels_in_use()

    def converse(self, prompt: Ids, tokens: int, turn: Ids) -> tuple[Completion, Completion]:
        """As `Side` has it."""
        with self._engine(1) as engine:
            cold = _complete(engine, prompt, _greedy(tokens))
            warm = _complete(engine, [*prompt, *cold.ids, *turn], _greedy(1))
        return cold, warm

    def batch(
        self, prompts: Sequence[Ids], tokens: int, params: Sequence[SamplingParams] | None = None
    ) -> list[Completion]:
        """As `Side` has it; or drawn otherwise, by `params` of each."""
        params = params or [_greedy(tokens + WAIT * len(prompts))] * len(prompts)
        found = [Completion() for _ in prompts]
        with self._engine(len(prompts)) as engine:
            generations = [engine.generate(*pair) for pair in zip(prompts, params, strict=True)]

            def read(n: int) -> None:
                for token in generations[n]:
                    found[n].add(token)
                    if all(len(completion.ids) >= tokens for completion in found):
                        break

            with ThreadPoolExecutor(len(prompts)) as pool:
                list(pool.map(read, range(len(prompts))))
        return found

    def _engine(self, sequences: int) -> Engine:
        return Engine(
            self.model,
            max_running=sequences,
            cache_bytes=self._plan.kv_budget,
            kv_bits=self._kv_bits,
            context=self._plan.context,
        )


def kernels_in_use() -> str:
    """How many of our Metal kernels serve, or what the user set; empty where there is no Metal."""
    here, setting = choice.device(), choice.setting()
    if here is None:
        return ""
    if setting != "auto":
        return f"{choice.VARIABLE}={setting}"
    on = sum(trial.why_off is None for trial in choice.trials(here).values())
    return f"{on} of {len(choice.CHOICES)} kernels on"


def _greedy(tokens: int) -> SamplingParams:
    return SamplingParams(temperature=0, max_tokens=tokens)


def _complete(engine: Engine, prompt: Ids, params: SamplingParams) -> Completion:
    completion = Completion()
    generation = engine.generate(prompt, params)
    for token in generation:
        completion.add(token)
    completion.cached = generation.stats.cached_tokens
    return completion
