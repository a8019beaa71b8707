"""What is measured: how many ids, which ones, how often; as JSON for the process that does it.

Ids are random, so that nothing is cached by chance, and ordinary, so that none has a meaning to a
tokenizer. It does not know who computes, nor what comes of it.
"""

from __future__ import annotations

import json
import random
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gptoss_mlx.memory import EmbeddingChoice
    from gptoss_mlx.segment import KVBits

__all__ = ["TURN", "WAIT", "Workload"]

TURN = 32  # new ids in the next turn of a conversation
WAIT = 64  # tokens that a sequence may decode while the prompt of another is read


@dataclass(frozen=True)
class Workload:
    """What each process measures, once.

    folder: of the checkpoint. vocabulary: ids lie below. contexts: lengths of the prompts of one
    sequence. batches: sequences that decode together, each after a prompt of the first context.
    tokens: that are decoded, in a batch while all decode. embedding, kv_bits: of our engine; mlx-lm
    has neither.
    """

    folder: str
    vocabulary: int
    contexts: tuple[int, ...]
    batches: tuple[int, ...]
    tokens: int
    embedding: EmbeddingChoice = "auto"
    kv_bits: KVBits = 16
    seed: int = 0

    def room(self, context: int) -> int:
        """Tokens of a conversation that begins with so many: prompt, answer, next turn, answer."""
        return context + self.tokens + TURN + 1

    def room_in_batch(self, batch: int) -> int:
        """Tokens of a sequence that begins to decode before all others have their prompts read."""
        return self.contexts[0] + self.tokens + WAIT * batch

    @property
    def longest(self) -> int:
        """Tokens of the longest sequence there is."""
        batches = [self.room_in_batch(batch) for batch in self.batches]
        return max([self.room(self.contexts[-1]), *batches])

    def ids(self, count: int, *purpose: object) -> list[int]:
        """So many ids, the same ones for the same purpose."""
        draw = random.Random(repr((self.seed, purpose)))
        return [draw.randrange(self.vocabulary) for _ in range(count)]

    def prompts(self, batch: int) -> list[list[int]]:
        """One for each sequence of a batch."""
        return [self.ids(self.contexts[0], "batch", batch, n) for n in range(batch)]

    def to_json(self) -> str:
        """All of it."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Workload:
        """What `to_json` wrote."""
        fields: dict[str, Any] = json.loads(text)
        fields |= {name: tuple(fields[name]) for name in ("contexts", "batches")}
        return cls(**fields)
