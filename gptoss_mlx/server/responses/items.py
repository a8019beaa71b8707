"""The items of a response, each as it comes into being: text in, wire events out.

An item begins, grows by pieces of text, and ends with the message that it stands for; one that the
server runs a tool for ends with the tool's result. `item` is what the events add up to. Events have
no sequence numbers yet. It does not know in which order items come.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Literal

from gptoss_mlx.server.responses.tools import ClientTool, custom_input
from gptoss_mlx.tools.browser import Citation, CitationFilter
from gptoss_mlx.tools.browser.citations import Source

__all__ = [
    "CustomCallItem",
    "FunctionCallItem",
    "OutputItem",
    "ReasoningItem",
    "Status",
    "TextItem",
    "Wire",
]

Wire = tuple[str, dict[str, Any]]
Status = Literal["in_progress", "completed", "incomplete", "failed"]


class OutputItem(ABC):
    """One item of a response's output.

    Args:
        index: its place in the output.
        identity: its id.
    """

    def __init__(self, index: int, identity: str) -> None:
        self.index, self.id = index, identity
        self.status: Status = "in_progress"

    @property
    @abstractmethod
    def item(self) -> dict[str, Any]:
        """The item as it is by now; a new object each time."""

    @abstractmethod
    def begin(self) -> list[Wire]:
        """The item is there."""

    @abstractmethod
    def grow(self, text: str) -> list[Wire]:
        """More of its text."""

    @abstractmethod
    def end(self, status: Status) -> list[Wire]:
        """All of its text has come."""

    def _event(self, name: str, /, **fields: Any) -> Wire:
        return f"response.{name}", {"item_id": self.id, "output_index": self.index, **fields}

    def _added(self) -> Wire:
        return "response.output_item.added", {"output_index": self.index, "item": self.item}

    def _done(self) -> Wire:
        return "response.output_item.done", {"output_index": self.index, "item": self.item}


class TextItem(OutputItem):
    """What is said to the user. What cites a page that was browsed becomes a link to it."""

    def __init__(self, index: int, identity: str, phase: str, source: Source | None) -> None:
        super().__init__(index, identity)
        self._phase = phase
        self._filter = CitationFilter(source) if source else None
        self._texts: list[str] = []
        self._logprobs: list[dict[str, Any]] = []
        self._pending: list[dict[str, Any]] = []  # of tokens whose text is held back
        self._num_annotations = 0
        self._has_part = False

    @property
    def item(self) -> dict[str, Any]:
        """A message."""
        return {
            "id": self.id,
            "type": "message",
            "role": "assistant",
            "status": self.status,
            "phase": self._phase,
            "content": [self._part()] if self._has_part else [],
        }

    def begin(self) -> list[Wire]:
        """The message, and its one part."""
        added = self._added()
        self._has_part = True
        return [added, self._event("content_part.added", content_index=0, part=self._part())]

    def expect(self, logprobs: Sequence[dict[str, Any]]) -> None:
        """The log-probabilities of the tokens that the next text is made of."""
        self._pending += logprobs

    def grow(self, text: str) -> list[Wire]:
        """A delta, and the citations that it completes."""
        return self._shown(self._filter.push(text) if self._filter else text)

    def end(self, status: Status) -> list[Wire]:
        """What was held back, and the whole."""
        self.status = status
        events = self._shown(self._filter.close() if self._filter else "")
        text, logprobs = "".join(self._texts), list(self._logprobs)
        done = self._event("output_text.done", content_index=0, text=text, logprobs=logprobs)
        part = self._event("content_part.done", content_index=0, part=self._part())
        return [*events, done, part, self._done()]

    def _shown(self, text: str) -> list[Wire]:
        events: list[Wire] = []
        if text:
            logprobs, self._pending = self._pending, []
            self._texts.append(text)
            self._logprobs += logprobs
            fields = {"content_index": 0, "delta": text, "logprobs": logprobs}
            events.append(self._event("output_text.delta", **fields))
        for citation in self._citations[self._num_annotations :]:
            fields = {"content_index": 0, "annotation_index": self._num_annotations}
            name = "output_text.annotation.added"
            events.append(self._event(name, annotation=_annotation(citation), **fields))
            self._num_annotations += 1
        return events

    @property
    def _citations(self) -> list[Citation]:
        return self._filter.citations if self._filter else []

    def _part(self) -> dict[str, Any]:
        annotations = [_annotation(c) for c in self._citations[: self._num_annotations]]
        return {
            "type": "output_text",
            "text": "".join(self._texts),
            "annotations": annotations,
            "logprobs": list(self._logprobs),
        }


class ReasoningItem(OutputItem):
    """The chain of thought.

    Where a summary was asked for, it is the chain of thought itself: nothing here could summarize
    it, and clients that show summaries only would show nothing for minutes.
    """

    def __init__(self, index: int, identity: str, has_summary: bool) -> None:
        super().__init__(index, identity)
        self._has_summary = has_summary
        self._texts: list[str] = []
        self._has_parts = False
        self.sealed: str | None = None

    @property
    def item(self) -> dict[str, Any]:
        """A reasoning item."""
        text = "".join(self._texts)
        summary = [{"type": "summary_text", "text": text}] if self._has_summary else []
        item = {
            "id": self.id,
            "type": "reasoning",
            "status": self.status,
            "summary": summary if self._has_parts else [],
            "content": [{"type": "reasoning_text", "text": text}] if self._has_parts else [],
        }
        return item if self.sealed is None else {**item, "encrypted_content": self.sealed}

    def begin(self) -> list[Wire]:
        """The item, its part, and the summary's."""
        added = self._added()
        self._has_parts = True
        part = self._event("content_part.added", content_index=0, part=self._part("reasoning"))
        summary = self._summary("part.added", part=self._part("summary"))
        return [added, part, *summary]

    def grow(self, text: str) -> list[Wire]:
        """A delta."""
        self._texts.append(text)
        delta = self._event("reasoning_text.delta", content_index=0, delta=text)
        return [delta, *self._summary("text.delta", delta=text)]

    def end(self, status: Status) -> list[Wire]:
        """The whole."""
        self.status = status
        text = "".join(self._texts)
        return [
            self._event("reasoning_text.done", content_index=0, text=text),
            self._event("content_part.done", content_index=0, part=self._part("reasoning")),
            *self._summary("text.done", text=text),
            *self._summary("part.done", part=self._part("summary")),
            self._done(),
        ]

    def _summary(self, name: str, **fields: Any) -> list[Wire]:
        if not self._has_summary:
            return []
        return [self._event(f"reasoning_summary_{name}", summary_index=0, **fields)]

    def _part(self, kind: str) -> dict[str, Any]:
        return {"type": f"{kind}_text", "text": "".join(self._texts)}


class FunctionCallItem(OutputItem):
    """A call for the client to answer."""

    def __init__(self, index: int, identity: str, call_id: str, tool: ClientTool) -> None:
        super().__init__(index, identity)
        self.call_id, self._tool = call_id, tool
        self._texts: list[str] = []

    @property
    def item(self) -> dict[str, Any]:
        """A function call."""
        namespace = {"namespace": self._tool.namespace} if self._tool.namespace else {}
        return {
            "id": self.id,
            "type": "function_call",
            "status": self.status,
            "call_id": self.call_id,
            "name": self._tool.name,
            **namespace,
            "arguments": "".join(self._texts),
        }

    def begin(self) -> list[Wire]:
        """A call without arguments."""
        return [self._added()]

    def grow(self, text: str) -> list[Wire]:
        """More of the arguments."""
        self._texts.append(text)
        return [self._event("function_call_arguments.delta", delta=text)]

    def end(self, status: Status) -> list[Wire]:
        """The call; arguments that a model left out are an empty object."""
        self.status = status
        is_empty = not "".join(self._texts).strip()
        events = self.grow("{}") if is_empty and status == "completed" else []
        arguments = "".join(self._texts)
        fields = {"name": self._tool.name, "arguments": arguments}
        return [*events, self._event("function_call_arguments.done", **fields), self._done()]


class CustomCallItem(OutputItem):
    """A call of a custom tool. The model writes JSON, so that its text is known at the end only."""

    def __init__(self, index: int, identity: str, call_id: str, tool: ClientTool) -> None:
        super().__init__(index, identity)
        self.call_id, self._tool = call_id, tool
        self._texts: list[str] = []
        self._input = ""

    @property
    def item(self) -> dict[str, Any]:
        """A custom tool's call."""
        namespace = {"namespace": self._tool.namespace} if self._tool.namespace else {}
        return {
            "id": self.id,
            "type": "custom_tool_call",
            "status": self.status,
            "call_id": self.call_id,
            "name": self._tool.name,
            **namespace,
            "input": self._input,
        }

    def begin(self) -> list[Wire]:
        """A call without input."""
        return [self._added()]

    def grow(self, text: str) -> list[Wire]:
        """Nothing yet."""
        self._texts.append(text)
        return []

    def end(self, status: Status) -> list[Wire]:
        """The input, in one piece."""
        self.status = status
        self._input = custom_input("".join(self._texts))
        done = self._event("custom_tool_call_input.done", input=self._input)
        delta = [self._event("custom_tool_call_input.delta", delta=self._input)]
        return [*(delta if self._input else []), done, self._done()]


def _annotation(citation: Citation) -> dict[str, Any]:
    return {
        "type": "url_citation",
        "start_index": citation.start_index,
        "end_index": citation.end_index,
        "url": citation.url,
        "title": citation.title,
    }
