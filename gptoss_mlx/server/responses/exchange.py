"""One request and its response: what runs, what writes its events, and what is kept of it.

It does not know HTTP, and neither how the request came nor who reads the events.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any

from gptoss_mlx.chat import Event
from gptoss_mlx.errors import ContextLengthError
from gptoss_mlx.server.context import Context as ServerContext
from gptoss_mlx.server.host import OpenModel
from gptoss_mlx.server.reply import OpenTools, Reply
from gptoss_mlx.server.responses.reading import Context, History, Reading
from gptoss_mlx.server.responses.response import blank_response
from gptoss_mlx.server.responses.store import StoredResponse
from gptoss_mlx.server.responses.writing import ResponseWriter
from gptoss_mlx.tools import Tool, Toolbox

__all__ = ["Exchange", "ResponseReply"]

_LAST_CALL = "[ERROR] no more calls are possible: answer with what you know now"


class ResponseReply(Reply):
    """A reply whose oldest turns may be dropped, and whose calls of builtin tools may be counted.

    That a prompt is too long is an event where there are events: Codex then compacts its history,
    which it does not at a status.
    """

    def __init__(self, reading: Reading, model: OpenModel, open_tools: OpenTools) -> None:
        super().__init__(reading.job, model, _limited(open_tools, reading.request.max_tool_calls))
        self._chat.drops_oldest = reading.drops_oldest
        self._is_streamed = bool(reading.request.stream)

    def begin(self) -> Generator[Event]:
        """As any reply begins."""
        try:
            return super().begin()
        except ContextLengthError as error:
            if not self._is_streamed:
                raise
            return _raising(error)


@dataclass
class Exchange:
    """A request that was read. `writer` is there when its works have begun."""

    server: ServerContext
    open_responses: bool
    reading: Reading
    context: Context
    identity: str
    items: tuple[dict[str, Any], ...]
    on_end: Callable[[Exchange], object] | None = None
    writer: ResponseWriter | None = None
    _reply: ResponseReply | None = None

    def works(self, model: OpenModel) -> list[ResponseReply]:
        """What is to be run."""
        self._reply = ResponseReply(self.reading, model, self.server.open_tools)
        return [self._reply]

    def make_writer(self, model: OpenModel) -> ResponseWriter:
        """What writes the events of the works."""
        assert self._reply is not None, "works come first"
        on_end = self.on_end
        self.writer = ResponseWriter(
            self.reading,
            self.context,
            model.tokenizer,
            model=self.server.settings.model,
            identity=self.identity,
            source=self._reply.source if "browser" in self.reading.job.builtins else None,
            open_responses=self.open_responses,
            clock=self.server.now,
            on_end=on_end and (lambda _: on_end(self)),
        )
        return self.writer

    def blank(self, **changes: Any) -> dict[str, Any]:
        """The response before anything was generated."""
        blank = blank_response(
            self.reading,
            identity=self.identity,
            model=self.server.settings.model,
            created_at=self.server.now(),
        )
        return blank | changes

    def stored(self, response: dict[str, Any] | None = None) -> StoredResponse:
        """A response as it is kept; by default this one, with what has come of it by now."""
        own, output = self.reading.own, History()
        if response is None:
            assert self.writer is not None, "nothing has come before the works have begun"
            response, output = self.writer.result(), self.writer.history
        history = History(own.messages + output.messages, {**own.calls, **output.calls})
        return StoredResponse(response, self.items, history)


class _Limited(Toolbox):
    """Tools that are run so many times, whichever is called; later calls are told so."""

    def __init__(self, tools: Sequence[Tool], max_calls: int) -> None:
        super().__init__(tools)
        self._calls_left = max_calls

    def run(self, recipient: str, content: str) -> str:
        """Run a call, if there is one left."""
        if not self._calls_left:
            return _LAST_CALL
        self._calls_left -= 1
        return super().run(recipient, content)


def _limited(open_tools: OpenTools, max_calls: int | None) -> OpenTools:
    if max_calls is None:
        return open_tools
    return lambda builtins: _Limited(open_tools(builtins).tools, max_calls)


def _raising(error: Exception) -> Generator[Event]:
    raise error
    yield
