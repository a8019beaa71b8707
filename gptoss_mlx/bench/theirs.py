"""Stock mlx-lm on the same checkpoint: its own generation, and its own batches.

The next turn of a conversation goes on with the prompt cache of the first, which is the best that
mlx-lm can do: its server, which has to find the cache again, does as well at most. On a GPU it
computes in the checkpoint's dtype; on the CPU in float32, as this package does there, since MLX is
slow in bfloat16 on a CPU and the comparison would flatter us.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx_lm.utils
from mlx_lm.generate import BatchGenerator, generate_step, generation_stream, wired_limit
from mlx_lm.models.cache import make_prompt_cache

from gptoss_mlx.bench.sides import Completion, Ids
from gptoss_mlx.bench.workload import WAIT, Workload

__all__ = ["Theirs"]

_STOCK_BATCH = 32  # of BatchGenerator; larger ones are only measured if they may run together
_utils: Any = mlx_lm.utils  # annotations are partial, or too narrow
_steps: Any = generate_step
_wired: Any = wired_limit


class Theirs:
    """mlx-lm's model of a workload, loaded."""

    kernels = ""

    def __init__(self, workload: Workload) -> None:
        self._model: Any = _utils.load_model(Path(workload.folder))[0]
        if mx.default_device() == mx.Device(mx.cpu):
            self._model.set_dtype(mx.float32)
            mx.eval(self._model.parameters())
        self.dtype = str(self._model.model.norm.weight.dtype).rpartition(".")[2]

    def converse(self, prompt: Ids, tokens: int, turn: Ids) -> tuple[Completion, Completion]:
        """As `Side` has it."""
        cache: Any = make_prompt_cache(self._model)
        cold = self._complete(prompt, tokens, cache)
        warm = self._complete(turn, 1, cache)
        warm.cached = len(prompt) + len(cold.ids)
        return cold, warm

    def batch(self, prompts: Sequence[Ids], tokens: int) -> list[Completion]:
        """As `Side` has it."""
        generator: Any = BatchGenerator(
            self._model,
            max_tokens=tokens + WAIT * len(prompts),
            completion_batch_size=max(len(prompts), _STOCK_BATCH),
        )
        found = {
            uid: Completion() for uid in generator.insert([list(prompt) for prompt in prompts])
        }
        while any(len(completion.ids) < tokens for completion in found.values()):
            for response in generator.next_generated():
                found[response.uid].add(response.token)
        generator.close()
        return list(found.values())

    def _complete(self, prompt: Ids, tokens: int, cache: Any) -> Completion:
        completion, ids = Completion(), mx.array(list(prompt))
        with _wired(self._model, [generation_stream]):
            for token, _ in _steps(ids, self._model, max_tokens=tokens, prompt_cache=cache):
                completion.add(token)
        return completion
