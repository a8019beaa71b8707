"""Tokens that a reply has taken, over all of its turns."""

from __future__ import annotations

from dataclasses import dataclass

from gptoss_mlx.chat import Turn
from gptoss_mlx.tokenizer import Tokenizer

__all__ = ["Usage"]


@dataclass
class Usage:
    """Counts so far. Each turn has a prompt, which holds all before it; most of that is cached."""

    tokenizer: Tokenizer
    prompt: int = 0
    cached: int = 0
    completion: int = 0
    reasoning: int = 0

    def add(self, turn: Turn) -> None:
        """One more turn."""
        self.prompt += turn.stats.prompt_tokens
        self.cached += turn.stats.cached_tokens
        self.completion += turn.stats.completion_tokens
        thoughts = [message for message in turn.messages if message.is_reasoning]
        ids = sum(len(m.ids or self.tokenizer.encode(m.content)) for m in thoughts)
        # a message that was cut off has an end that was never drawn
        self.reasoning += min(ids, turn.stats.completion_tokens)
