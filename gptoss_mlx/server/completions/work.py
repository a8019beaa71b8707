"""One raw completion as something that a run can run: a prompt in, pieces of text out."""

from __future__ import annotations

import codecs
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass, field
from typing import Literal

from gptoss_mlx.generation import Generation
from gptoss_mlx.harmony import Delta, Message, StopFilter
from gptoss_mlx.sequence import GenerationStats, Request, Token
from gptoss_mlx.server.completions.reading import Completion
from gptoss_mlx.server.host import OpenModel
from gptoss_mlx.tokenizer import STOP_TOKENS

__all__ = ["Begun", "Ended", "Piece", "RawCompletion", "Result"]


@dataclass(frozen=True)
class Begun:
    """The prompt, as text."""

    prompt: str


@dataclass(frozen=True)
class Piece:
    """More text, or a token that has not become any yet."""

    text: str
    token: Token


@dataclass(frozen=True)
class Ended:
    """The rest of the text, and how it went."""

    text: str
    finish_reason: Literal["stop", "length"]
    stats: GenerationStats = field(repr=False)


Result = Begun | Piece | Ended


class RawCompletion:
    """What a `Run` needs of one completion; see its `Work`. Markers do not become text."""

    def __init__(self, completion: Completion, model: OpenModel) -> None:
        self._asked, self._model = completion, model
        self._generation: Generation | None = None
        self._is_cancelled = False

    def begin(self) -> Generator[Result]:
        """Submit it.

        Raises:
            GptOssError: the request cannot be taken.
        """
        tokenizer, prompt = self._model.tokenizer, self._asked.prompt
        ids = tokenizer.encode_with_special(prompt) if isinstance(prompt, str) else list(prompt)
        request = Request(tuple(ids), self._asked.params, stop=STOP_TOKENS)
        self._generation = self._model.engine.submit(request)
        if self._is_cancelled:
            self._generation.close()
        text = prompt if isinstance(prompt, str) else tokenizer.decode(ids)
        return self._results(text, self._generation)

    def cancel(self) -> None:
        """End it."""
        self._is_cancelled = True
        if self._generation is not None:
            self._generation.close()

    def close(self) -> None:
        """It holds nothing."""

    def _results(self, prompt: str, generation: Generation) -> Generator[Result]:
        yield Begun(prompt)
        stops = StopFilter(self._asked.stop)  # made for answers, which this is one of
        utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")
        whole, last = "", None
        with closing(generation):
            for token in generation.tokens():
                last = token.id
                if last in STOP_TOKENS:
                    break
                text = self._text(utf8, last)
                whole += text
                yield Piece(_remaining(stops, Delta("final", None, text)), token)
                if stops.stopped is not None:
                    break
        rest = utf8.decode(b"", final=True)
        text = _remaining(stops, Delta("final", None, rest))
        text += _remaining(stops, Message("assistant", whole + rest, "final"))
        has_stopped = last in STOP_TOKENS or stops.stopped is not None
        yield Ended(text, "stop" if has_stopped else "length", generation.stats)

    def _text(self, utf8: codecs.IncrementalDecoder, i: int) -> str:
        tokenizer = self._model.tokenizer
        return "" if tokenizer.is_special(i) else utf8.decode(tokenizer.decode_bytes([i]))


def _remaining(stops: StopFilter, event: Delta | Message) -> str:
    """The text that may be given out now."""
    return "".join(e.text for e in stops.push([event]) if isinstance(e, Delta))
