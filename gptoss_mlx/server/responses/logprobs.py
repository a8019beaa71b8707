"""Tokens with log-probabilities, held until the text that they belong to is given out.

It does not know which texts are shown: whoever does takes what is held, or leaves it.
"""

from __future__ import annotations

from typing import Any

from gptoss_mlx.sequence import Token
from gptoss_mlx.tokenizer import MESSAGE, VOCAB_SIZE, Tokenizer

__all__ = ["PendingLogprobs"]

_IMPOSSIBLE = -9999.0  # for minus infinity, which JSON has not


class PendingLogprobs:
    """The tokens of the open message since they were last taken; those of headers are left out."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._tokens: list[Token] = []

    def push(self, token: Token) -> None:
        """The next token of a completion."""
        if token.id == MESSAGE:  # what came before was a header, or another message's end
            self._tokens.clear()
        elif 0 <= token.id < VOCAB_SIZE and not self._tokenizer.is_special(token.id):
            self._tokens.append(token)

    def take(self) -> list[dict[str, Any]]:
        """What is held, as the API has it."""
        tokens, self._tokens = self._tokens, []
        return [self._as_json(token) for token in tokens]

    def _as_json(self, token: Token) -> dict[str, Any]:
        top = [self._entry(i, logprob) for i, logprob in token.top_logprobs]
        return {**self._entry(token.id, token.logprob or 0.0), "top_logprobs": top}

    def _entry(self, i: int, logprob: float) -> dict[str, Any]:
        data = self._tokenizer.decode_bytes([i])
        text = data.decode("utf-8", errors="replace")
        return {"token": text, "bytes": list(data), "logprob": max(logprob, _IMPOSSIBLE)}
