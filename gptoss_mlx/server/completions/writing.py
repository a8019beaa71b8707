"""The pieces of raw completions -> chunks, and the completion that they add up to.

The completion is folded from the very chunks. It knows no HTTP.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from gptoss_mlx.sequence import Token
from gptoss_mlx.server.answer import Wire
from gptoss_mlx.server.completions.reading import Reading
from gptoss_mlx.server.completions.work import Begun, Ended, Piece, Result
from gptoss_mlx.server.problems import Problem, openai_error
from gptoss_mlx.server.sse import DONE
from gptoss_mlx.tokenizer import Tokenizer

__all__ = ["CompletionWriter"]

_IMPOSSIBLE = -9999.0  # instead of minus infinity, which JSON has not
_LOGPROBS = ("tokens", "token_logprobs", "top_logprobs", "text_offset")


def _random_id() -> str:
    return f"cmpl-{secrets.token_hex(12)}"


@dataclass
class _Choice:
    """How far one choice has come."""

    text: str = ""
    finish_reason: str | None = None
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    logprobs: dict[str, list[Any]] = field(default_factory=lambda: {key: [] for key in _LOGPROBS})
    offset: int = 0  # characters of the text that tokens so far have spelled


class CompletionWriter:
    """Results of each choice in, chunks out.

    Args:
        reading: what was asked.
        model: the id that clients are told.
        tokenizer: the model's.
        created: seconds since 1970.
        make_id: of a completion.
    """

    terminator = DONE

    def __init__(
        self,
        reading: Reading,
        model: str,
        tokenizer: Tokenizer,
        created: int,
        make_id: Callable[[], str] = _random_id,
    ) -> None:
        self._reading, self._tokenizer = reading, tokenizer
        self._head = {
            "id": make_id(),
            "object": "text_completion",
            "created": created,
            "model": model,
        }
        self._choices = [_Choice() for _ in reading.completions]

    def begin(self) -> list[Wire]:
        """Nothing."""
        return []

    def push(self, number: int, result: Result) -> list[Wire]:
        """The chunk of one choice's next result."""
        choice = self._choices[number]
        match result:
            case Begun():
                choice.offset = len(result.prompt) if self._reading.echo else 0
                return self._grow(number, result.prompt) if self._reading.echo else []
            case Piece():
                return self._grow(number, result.text, self._logprobs(number, result.token))
            case Ended():
                stats = result.stats
                choice.prompt_tokens = stats.prompt_tokens
                choice.cached_tokens = stats.cached_tokens
                choice.completion_tokens = stats.completion_tokens
                choice.finish_reason = result.finish_reason
                return self._grow(number, result.text)

    def heartbeat(self) -> list[Wire]:
        """A chunk that says nothing."""
        return [self._chunk([self._delta(0, "")])]

    def end(self) -> list[Wire]:
        """Why each choice ended, and what all of it took."""
        wires = [
            self._chunk([self._delta(number, "", finish_reason=choice.finish_reason)])
            for number, choice in enumerate(self._choices)
        ]
        if self._reading.includes_usage:
            wires.append((None, {**self._head, "choices": [], "usage": self._usage()}))
        return wires

    def fail(self, problem: Problem) -> list[Wire]:
        """The error."""
        return [(None, openai_error(problem))]

    def result(self) -> dict[str, Any]:
        """The completion."""
        choices = [
            self._delta(
                number,
                choice.text,
                choice.logprobs if self._has_logprobs(number) else None,
                choice.finish_reason,
            )
            for number, choice in enumerate(self._choices)
        ]
        return {**self._head, "choices": choices, "usage": self._usage()}

    @property
    def tokens(self) -> tuple[int, int]:
        """Of the prompts, and of what was generated."""
        usage = self._usage()
        return usage["prompt_tokens"], usage["completion_tokens"]

    def _grow(
        self, number: int, text: str, logprobs: dict[str, list[Any]] | None = None
    ) -> list[Wire]:
        choice = self._choices[number]
        choice.text += text
        for key, values in (logprobs or {}).items():
            choice.logprobs[key] += values
        return [self._chunk([self._delta(number, text, logprobs)])] if text or logprobs else []

    def _delta(
        self,
        number: int,
        text: str,
        logprobs: dict[str, list[Any]] | None = None,
        finish_reason: str | None = None,
    ) -> dict[str, Any]:
        return {
            "index": number,
            "text": text,
            "logprobs": logprobs,
            "finish_reason": finish_reason,
        }

    def _chunk(self, choices: list[dict[str, Any]]) -> Wire:
        usage: dict[str, Any] = {"usage": None} if self._reading.includes_usage else {}
        return None, {**self._head, "choices": choices, **usage}

    def _has_logprobs(self, number: int) -> bool:
        return self._reading.completions[number].params.logprobs is not None

    def _logprobs(self, number: int, token: Token) -> dict[str, list[Any]] | None:
        """One token, in the four lists of this API."""
        if not self._has_logprobs(number):
            return None
        choice = self._choices[number]
        text = self._tokenizer.decode([token.id])
        offset, choice.offset = choice.offset, choice.offset + len(text)
        top = {self._tokenizer.decode([i]): _finite(value) for i, value in token.top_logprobs}
        values = (text, _finite(token.logprob), top, offset)
        return {key: [value] for key, value in zip(_LOGPROBS, values, strict=True)}

    def _usage(self) -> dict[str, Any]:
        """A prompt counts once, whatever the number of its choices."""
        choices = self._choices
        per_prompt = self._reading.choices_per_prompt
        prompt = sum(choice.prompt_tokens for choice in choices[::per_prompt])
        cached = sum(choice.cached_tokens for choice in choices[::per_prompt])
        completion = sum(choice.completion_tokens for choice in choices)
        return {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
            "prompt_tokens_details": {"cached_tokens": cached},
        }


def _finite(logprob: float | None) -> float:
    return _IMPOSSIBLE if logprob is None else max(logprob, _IMPOSSIBLE)
