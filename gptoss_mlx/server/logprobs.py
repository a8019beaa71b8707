"""Log-probabilities of the tokens that an answer's text is made of.

Tokens come before the text they become, those of headers and reasoning among them, and text may be
held back. So tokens are matched to text by their bytes. It does not know which texts are shown.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from gptoss_mlx.sequence import Token
from gptoss_mlx.tokenizer import MESSAGE, Tokenizer

__all__ = ["Logprobs"]

_IMPOSSIBLE = -9999.0  # what OpenAI's API says instead of minus infinity, which JSON has not


class Logprobs:
    """Tokens in; those of a piece of text out, as OpenAI's API has them.

    Args:
        tokenizer: the model's.
        top: how many of the likeliest to show beside each.
    """

    def __init__(self, tokenizer: Tokenizer, top: int) -> None:
        self._tokenizer, self._top = tokenizer, top
        self._pending: deque[Token] = deque()  # whose text has not come
        self._room = 0  # bytes of text that has come, whose tokens were not taken

    def push(self, token: Token) -> None:
        """A token was drawn. Those before a `<|message|>` were the header's, or of another one."""
        if token.id == MESSAGE:
            self.clear()
        elif not self._tokenizer.is_special(token.id):
            self._pending.append(token)

    def take(self, text: str) -> list[dict[str, Any]]:
        """The tokens that are complete with this text; one that is half in it comes later."""
        self._room += len(text.encode())
        taken: list[dict[str, Any]] = []
        while self._pending:
            size = len(self._tokenizer.decode_bytes([self._pending[0].id]))
            if size > self._room:
                break
            self._room -= size
            taken.append(self._entry(self._pending.popleft()))
        return taken

    def clear(self) -> None:
        """A message has ended; what of it was never shown is forgotten."""
        self._pending.clear()
        self._room = 0

    def _entry(self, token: Token) -> dict[str, Any]:
        top = token.top_logprobs[: self._top]
        likeliest = [self._spelled(i, logprob) for i, logprob in top]
        return {**self._spelled(token.id, token.logprob), "top_logprobs": likeliest}

    def _spelled(self, i: int, logprob: float | None) -> dict[str, Any]:
        spelling = self._tokenizer.decode_bytes([i])
        value = _IMPOSSIBLE if logprob is None else max(logprob, _IMPOSSIBLE)
        text = spelling.decode("utf-8", errors="replace")
        return {"token": text, "logprob": value, "bytes": list(spelling)}
