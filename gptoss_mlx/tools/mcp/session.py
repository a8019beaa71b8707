"""One run of an MCP server: a process, a session with it, and a thread with the event loop of both.

The transport is our own, for the one of the `mcp` package leaves the children of a server that ends
by itself, and does not tell whether a server lives. It does not know what the tools are for.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import threading
from collections.abc import AsyncGenerator
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

from gptoss_mlx.tools.children import Tail, ending, kill

if TYPE_CHECKING:
    from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
    from mcp import Client
    from mcp.shared.message import SessionMessage
    from mcp.types import CallToolResult, Tool

__all__ = ["Server", "Session"]

_MAX_LINE = 32_000_000  # bytes of one message
_GRACE = 2.0  # seconds that a server has to end once its stdin is closed
_MOMENT = 0.2  # seconds between the end of a pipe and the end of its process
_SHOWN = 1_000  # characters of its stderr
_MAX_PAGES, _MAX_TOOLS = 50, 1_000  # of the list of what a server offers


@dataclass(frozen=True)
class Server:
    """How a server is started: what stands below its name in a configuration."""

    name: str
    command: str
    args: tuple[str, ...] = ()
    env: dict[str, str] = field(default_factory=dict[str, str])
    cwd: Path | None = None


class Session:
    """A server that runs. The constructor starts it; `tools` waits until it can be called.

    Raises:
        OSError: there is no such program.
    """

    def __init__(self, server: Server) -> None:
        from mcp.client.stdio import get_default_environment

        self._process = subprocess.Popen(
            [server.command, *server.args],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**get_default_environment(), **server.env},
            cwd=server.cwd,
            start_new_session=True,
        )
        assert self._process.stderr
        self._errors = Tail(self._process.stderr)
        self._opened: Future[tuple[Client, list[Tool]]] = Future()
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._is_closed = False
        self._lock = threading.Lock()  # held while something is given to the loop
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def tools(self, seconds: float) -> list[Tool]:
        """What the server offers.

        Raises:
            TimeoutError: it has not said so in time.
            MCPError: it ended, or speaks another protocol.
            ValueError: it offers too much.
        """
        return self._opened.result(seconds)[1]

    def call(self, name: str, arguments: dict[str, Any], seconds: float) -> CallToolResult:
        """Call a tool.

        Raises:
            TimeoutError: it has not answered in time.
            MCPError: the server says that it cannot, or has ended.
            CancelledError: the session was closed meanwhile.
        """
        client, _ = self._opened.result(0)
        with self._lock:
            if self._is_closed:
                raise CancelledError
            call = client.call_tool(name, arguments)
            future = asyncio.run_coroutine_threadsafe(call, self._loop)
        try:
            return future.result(seconds)
        finally:
            future.cancel()

    @property
    def is_alive(self) -> bool:
        """Whether the process runs."""
        return self._process.poll() is None

    def has_ended(self) -> bool:
        """Whether the process has ended; one that is about to gets a moment."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_MOMENT)
        return not self.is_alive

    def obituary(self) -> str:
        """How a server ended that is no more, and what it said last."""
        said = self._errors.text()[-_SHOWN:]
        return f"{ending(self._process)}: {said}".removesuffix(": ")

    def close(self, is_urgent: bool = False) -> None:
        """End the server, which may tidy up unless it `is_urgent`, and whatever it has started."""
        with self._lock:
            if not self._is_closed:
                self._is_closed = True
                with contextlib.suppress(RuntimeError):  # the loop has ended
                    self._loop.call_soon_threadsafe(self._stop.set)
        if not is_urgent:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_GRACE)
        kill(self._process)
        self._thread.join(_GRACE)
        self._errors.text()

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
                runner.run(self._serve())
        except BaseException as error:
            if not self._opened.done():
                self._opened.set_exception(_innermost(error))

    async def _serve(self) -> None:
        from mcp import Client

        async with Client(_transport(self._process)) as client:
            self._opened.set_result((client, await _listed(client)))
            await self._stop.wait()


async def _listed(client: Client) -> list[Tool]:
    """What a server offers, of all pages.

    Raises:
        ValueError: there is too much, or no end of it.
    """
    tools: list[Tool] = []
    cursor: str | None = None
    for _ in range(_MAX_PAGES):
        page = await client.list_tools(cursor=cursor)
        tools += page.tools
        cursor = page.next_cursor
        if not cursor or len(tools) > _MAX_TOOLS:
            break
    if cursor or len(tools) > _MAX_TOOLS:
        raise ValueError(f"it lists more than {_MAX_TOOLS:,} tools, or {_MAX_PAGES} pages of them")
    return tools


def _innermost(error: BaseException) -> BaseException:
    """The first error of a group of errors, which task groups make of one."""
    if isinstance(error, BaseExceptionGroup):
        return _innermost(cast("BaseExceptionGroup[BaseException]", error).exceptions[0])
    return error


@contextlib.asynccontextmanager
async def _transport(
    process: subprocess.Popen[bytes],
) -> AsyncGenerator[
    tuple[
        MemoryObjectReceiveStream[SessionMessage | Exception],
        MemoryObjectSendStream[SessionMessage],
    ]
]:
    """What a session reads and writes: messages, one a line."""
    import anyio
    from mcp.shared.message import SessionMessage

    assert process.stdin
    assert process.stdout
    to_session, from_server = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    to_server, from_session = anyio.create_memory_object_stream[SessionMessage](0)
    with process.stdin, to_session, from_server, to_server, from_session:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_read, process.stdout, to_session)
            tasks.start_soon(_write, process.stdin, from_session)
            try:
                yield from_server, to_server
            finally:
                tasks.cancel_scope.cancel()


async def _read(
    stdout: IO[bytes], to_session: MemoryObjectSendStream[SessionMessage | Exception]
) -> None:
    """Messages to the session, until the server ends. What is no message is dropped."""
    from mcp.shared.message import SessionMessage
    from mcp.types import jsonrpc_message_adapter

    reader = asyncio.StreamReader(limit=_MAX_LINE)
    loop = asyncio.get_running_loop()
    pipe, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), stdout)
    too_long = ValueError  # what a line is that does not fit
    with contextlib.closing(pipe), to_session, contextlib.suppress(too_long, OSError):
        while line := await reader.readline():
            with contextlib.suppress(ValueError):
                message = jsonrpc_message_adapter.validate_json(line, by_name=False)
                await to_session.send(SessionMessage(message))


async def _write(stdin: IO[bytes], from_session: MemoryObjectReceiveStream[SessionMessage]) -> None:
    """Messages to the server. One that has ended is noticed where it is read."""
    async for sent in from_session:
        line = sent.message.model_dump_json(by_alias=True, exclude_unset=True)
        with contextlib.suppress(OSError):
            await asyncio.to_thread(_write_all, stdin.fileno(), f"{line}\n".encode())


def _write_all(pipe: int, content: bytes) -> None:
    while content:
        content = content[os.write(pipe, content) :]
