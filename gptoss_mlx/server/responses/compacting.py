"""A conversation -> an item that stands for it: a summary, which the model itself writes.

The item is sealed: a client hands it back in place of all that was said. It does not know HTTP, and
neither threads nor the model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from gptoss_mlx.chat import Event, Turn
from gptoss_mlx.harmony import Message
from gptoss_mlx.server.answer import Wire
from gptoss_mlx.server.problems import Problem
from gptoss_mlx.server.responses.reading import Reading
from gptoss_mlx.server.responses.response import usage_json
from gptoss_mlx.server.responses.schema import CompactRequest, CreateRequest
from gptoss_mlx.server.responses.writing import new_id
from gptoss_mlx.server.sealing import Seal
from gptoss_mlx.server.usage import Usage
from gptoss_mlx.tokenizer import Tokenizer

__all__ = ["CompactionWriter", "as_create", "summarizing"]

_ASK = (
    "Summarize our conversation so far, so that somebody who knows nothing else can go on with it: "
    "what was asked for, what was found and decided, names and numbers that matter, what was done, "
    "and what is left to do. Write the summary only."
)
_MAX_TAIL = 4_000  # characters
_TELL = "This is a summary of our conversation so far:\n\n"


def as_create(body: Mapping[str, Any]) -> CreateRequest:
    """The request for a response to the same conversation; what does not fit is left out.

    Raises:
        ValidationError: the body is no `CompactRequest`.
    """
    CompactRequest.model_validate(body)
    asked = {key: body[key] for key in CompactRequest.model_fields if key in body}
    return CreateRequest.model_validate({**asked, "truncation": "auto", "store": False})


def summarizing(reading: Reading) -> Reading:
    """The same conversation, in which a summary is asked for."""
    messages = (*reading.job.messages, Message("user", _ASK))
    return replace(reading, job=replace(reading.job, messages=messages))


class CompactionWriter:
    """Events of a reply in, and in the end the summary, sealed.

    Args:
        messages: what is summarized; a model that writes nothing leaves the end of it.
        seal: what makes the item.
        tokenizer: the model's.
        created_at: seconds since 1970.
    """

    terminator = b""

    def __init__(
        self, messages: Sequence[Message], seal: Seal, tokenizer: Tokenizer, created_at: int
    ) -> None:
        self._seal, self._created_at = seal, created_at
        self._usage = Usage(tokenizer)
        said = "\n\n".join(f"{message.role}: {message.content}" for message in messages)
        self._summary = said[-_MAX_TAIL:]

    def begin(self) -> list[Wire]:
        """Nothing: it is not streamed."""
        return []

    def push(self, number: int, result: Event) -> list[Wire]:
        """Keeps the answer; `number` is always 0."""
        del number
        if isinstance(result, Turn):
            self._usage.add(result)
            self._summary = result.answer or self._summary
        return []

    def heartbeat(self) -> list[Wire]:
        """Nothing."""
        return []

    def end(self) -> list[Wire]:
        """Nothing."""
        return []

    def fail(self, problem: Problem) -> list[Wire]:
        """Nothing."""
        del problem
        return []

    def result(self) -> dict[str, Any]:
        """The compaction."""
        sealed = self._seal.seal(Message("user", f"{_TELL}{self._summary}"))
        item = {"id": new_id("cmp"), "type": "compaction", "encrypted_content": sealed}
        return {
            "id": new_id("resp"),
            "object": "response.compaction",
            "created_at": self._created_at,
            "output": [item],
            "usage": usage_json(self._usage),
        }

    @property
    def tokens(self) -> tuple[int, int]:
        """Of the prompt, and of what was generated."""
        return self._usage.prompt, self._usage.completion
