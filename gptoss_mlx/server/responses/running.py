"""The items of a response that stand for a call of a tool which the server runs itself.

Such an item ends when its arguments are complete, and is finished with the tool's result. It does
not know who runs the tool.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from gptoss_mlx.server.browsing import arguments_of, page_of
from gptoss_mlx.server.responses.items import OutputItem, Status, Wire
from gptoss_mlx.tools.browser.citations import Source
from gptoss_mlx.tools.browser.page import Page

__all__ = ["CodeItem", "RunItem", "SearchItem"]


class RunItem(OutputItem):
    """A call that the server runs a tool for: it is done when the tool is."""

    @abstractmethod
    def finish(self, output: str | None) -> list[Wire]:
        """The tool has given this; None: it was not run, or nobody waited for it."""


class SearchItem(RunItem):
    """A call of the browser. Nothing is known of it before its arguments are complete."""

    def __init__(
        self, index: int, identity: str, recipient: str, source: Source, has_sources: bool
    ) -> None:
        super().__init__(index, identity)
        self._recipient, self._source, self._has_sources = recipient, source, has_sources
        self._texts: list[str] = []
        self._found: Page | None = None

    @property
    def item(self) -> dict[str, Any]:
        """A web search call."""
        return {
            "id": self.id,
            "type": "web_search_call",
            "status": self.status,
            "action": self._action(),
        }

    def begin(self) -> list[Wire]:
        """Nothing yet."""
        return []

    def grow(self, text: str) -> list[Wire]:
        """Nothing yet."""
        self._texts.append(text)
        return []

    def end(self, status: Status) -> list[Wire]:
        """The call, and that it is run."""
        events = [self._added(), self._event("web_search_call.in_progress")]
        if status == "completed":
            events.append(self._event("web_search_call.searching"))
        return events

    def finish(self, output: str | None) -> list[Wire]:
        """What it led to."""
        self.status = "incomplete" if output is None else "completed"
        if output is not None and output.startswith("[ERROR]"):
            self.status = "failed"
        if self.status != "completed":
            return [self._done()]
        self._found = page_of(-1, self._source)
        return [self._event("web_search_call.completed"), self._done()]

    def _action(self) -> dict[str, Any]:
        arguments = arguments_of("".join(self._texts))
        found = self._found
        if self._recipient == "browser.search":
            query = str(arguments.get("query", ""))
            action: dict[str, Any] = {"type": "search", "query": query, "queries": [query]}
            links = found.links if found and self._has_sources else ()
            sources = [{"type": "url", "url": link.url} for link in links]
            return {**action, "sources": sources} if self._has_sources else action
        if self._recipient == "browser.find":
            page = found or page_of(arguments.get("cursor", -1), self._source)
            pattern = str(arguments.get("pattern", ""))
            url = page.source_url if page else ""
            return {"type": "find_in_page", "pattern": pattern, "url": url}
        target = arguments.get("id")
        url = target if isinstance(target, str) and "://" in target else None
        return {"type": "open_page", "url": found.source_url if found else url}


class CodeItem(RunItem):
    """A call of python."""

    def __init__(self, index: int, identity: str, container: str, has_outputs: bool) -> None:
        super().__init__(index, identity)
        self._container, self._has_outputs = container, has_outputs
        self._texts: list[str] = []
        self._output: str | None = None

    @property
    def item(self) -> dict[str, Any]:
        """A code interpreter call."""
        has_logs = self._has_outputs and self._output is not None
        return {
            "id": self.id,
            "type": "code_interpreter_call",
            "status": self.status,
            "container_id": self._container,
            "code": "".join(self._texts),
            "outputs": [{"type": "logs", "logs": self._output}] if has_logs else None,
        }

    def begin(self) -> list[Wire]:
        """A call without code."""
        return [self._added(), self._event("code_interpreter_call.in_progress")]

    def grow(self, text: str) -> list[Wire]:
        """More code."""
        self._texts.append(text)
        return [self._event("code_interpreter_call_code.delta", delta=text)]

    def end(self, status: Status) -> list[Wire]:
        """The code, and that it is run."""
        code = "".join(self._texts)
        done = self._event("code_interpreter_call_code.done", code=code)
        if status != "completed":
            return [done]
        return [done, self._event("code_interpreter_call.interpreting")]

    def finish(self, output: str | None) -> list[Wire]:
        """What it printed; a traceback is an output like others."""
        self._output = output
        self.status = "completed" if output is not None else "incomplete"
        completed = [self._event("code_interpreter_call.completed")] if output is not None else []
        return [*completed, self._done()]
