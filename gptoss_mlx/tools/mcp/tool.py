"""Tools of MCP servers: processes that speak the Model Context Protocol over stdin and stdout.

A configuration file names the servers; each becomes one tool. Servers are not shut in. It does not
know how the protocol is spoken; that is session.py, and the `mcp` package.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import re
import threading
from collections import Counter
from collections.abc import Collection, Generator, Mapping, Sequence
from concurrent.futures import CancelledError
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from gptoss_mlx.errors import ToolError, UsageError
from gptoss_mlx.harmony import FunctionTool
from gptoss_mlx.tools.base import Preview, Tool, json_arguments
from gptoss_mlx.tools.calls import call_preview, inlined
from gptoss_mlx.tools.mcp.session import Server, Session

if TYPE_CHECKING:
    from mcp.types import CallToolResult
    from mcp.types import Tool as Offer

__all__ = ["McpTool", "load_mcp", "unique_names"]

TIMEOUT = 60.0  # seconds that a call may take
START_TIMEOUT = 30.0  # seconds until a server has listed its tools


class McpTool(Tool):
    """The tools of one server, which runs until this is closed.

    A server that ended, or was stopped by a timeout or Ctrl-C, is started again by the next call.

    Args:
        server: how it is started.
        session: its first run.
        offers: its tools by the names that the model calls them by.
        timeout: seconds that a call may take.
    """

    def __init__(
        self, server: Server, session: Session, offers: Mapping[str, Offer], timeout: float
    ) -> None:
        self.name = f"mcp:{server.name}"
        self.server = server
        self._session: Session | None = session
        self._offers = offers
        self._timeout = timeout
        self._is_closed = False
        self._lock = threading.Lock()  # held while the session is exchanged
        self.functions = tuple(
            FunctionTool(name, offer.description or offer.title or "", inlined(offer.input_schema))
            for name, offer in offers.items()
        )

    @property
    def recipients(self) -> Sequence[str]:
        """What its calls are addressed to."""
        return tuple(f"functions.{name}" for name in self._offers)

    def preview(self, recipient: str, content: str) -> Preview:
        """The call as Python would write it; its arguments as JSON where they are long."""
        return call_preview(recipient.removeprefix("functions."), content)

    def run(self, recipient: str, content: str) -> str:
        """Call the tool; returns its texts, and a line for what is no text."""
        offer = self._offers[recipient.removeprefix("functions.")]
        arguments = json_arguments(content)
        session = self._running()
        with self._failures(session, offer.name):
            result = session.call(offer.name, arguments, self._timeout)
        text = _text(result)
        if result.is_error:
            raise ToolError(text or f"{offer.name} failed")
        return text

    def close(self) -> None:
        """End the server and what it started. A call that runs fails."""
        with self._lock:
            self._is_closed = True
            session, self._session = self._session, None
        if session:
            session.close()

    def _running(self) -> Session:
        """The server as it runs, started again if it does not."""
        try:
            with self._lock:
                if self._is_closed:
                    raise ToolError(f"the MCP server {self.server.name} was closed")
                if self._session is None or not self._session.is_alive:
                    if self._session:
                        self._session.close(is_urgent=True)
                    self._session = _spawn(self.server)
                session = self._session
            _offers(self.server, session, START_TIMEOUT)  # at once, where it runs already
        except UsageError as error:
            raise ToolError(str(error)) from None
        return session

    @contextlib.contextmanager
    def _failures(self, session: Session, name: str) -> Generator[None]:
        """What can go wrong with a call, as errors for the model."""
        from mcp import MCPError

        server = f"the MCP server {self.server.name}"
        try:
            yield
        except CancelledError:
            raise ToolError(f"{server} was closed") from None
        except TimeoutError:
            session.close(is_urgent=True)
            text = f"{name} took longer than {self._timeout:g} s: {server} was stopped"
            raise ToolError(f"{text}, and starts anew with the next call") from None
        except MCPError as error:
            if not session.has_ended():
                raise ToolError(f"{name}: {error}") from None
            text = "was closed" if self._is_closed else f"ended ({session.obituary()})"
            raise ToolError(f"{server} {text}. The next call starts it anew") from None
        except Exception as error:  # a result that breaks the protocol or its schema
            raise ToolError(f"{name}: {server} sent a wrong result ({error})") from error
        except BaseException:
            session.close(is_urgent=True)
            raise


def load_mcp(path: Path, timeout: float = TIMEOUT, taken: Collection[str] = ()) -> list[McpTool]:
    """Start the servers of a configuration file, {"mcpServers": {name: {"command": ...}}}.

    A relative `cwd` is below the file's folder. Of the environment they get the little that the
    `mcp` package passes on, and `env`. Tools keep their names as far as function names allow; where
    two would be one, or one is `taken`, they become `server__tool`.

    Raises:
        UsageError: the file is not like that, or a server does not start in START_TIMEOUT seconds.
    """
    # what the package logs of servers is said in errors already
    logging.getLogger("mcp").addHandler(logging.NullHandler())
    servers = _servers(path)
    sessions: list[Session] = []
    try:
        for server in servers:  # they start side by side
            sessions.append(_spawn(server))
        pairs = zip(servers, sessions, strict=True)
        offers = [_offers(server, session, START_TIMEOUT) for server, session in pairs]
    except BaseException:
        for session in sessions:
            session.close(is_urgent=True)
        raise
    listed = [[offer.name for offer in some] for some in offers]
    names = unique_names([server.name for server in servers], listed, taken)
    return [
        McpTool(server, session, dict(zip(own, some, strict=True)), timeout)
        for server, session, own, some in zip(servers, sessions, names, offers, strict=True)
    ]


def _servers(path: Path) -> list[Server]:
    try:
        config: object = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{path} cannot be read as JSON: {error}") from None
    entries = cast("dict[str, Any]", config).get("mcpServers") if isinstance(config, dict) else None
    if not isinstance(entries, dict) or not entries:
        raise UsageError(f'{path} names no servers: it needs {{"mcpServers": {{"name": {{...}}}}}}')
    return [_server(name, entry, path) for name, entry in cast("dict[str, Any]", entries).items()]


def _server(name: str, entry: object, path: Path) -> Server:
    from mcp import StdioServerParameters
    from pydantic import ValidationError

    try:
        fields = StdioServerParameters.model_validate(entry)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, (name, *first["loc"])))
        raise UsageError(
            f"{path}: {where}: {first['msg']}. Of servers, only those with a command can be used"
        ) from None
    folder = path.absolute().parent / fields.cwd if fields.cwd else None
    return Server(name, fields.command, tuple(fields.args), fields.env or {}, folder)


def _spawn(server: Server) -> Session:
    try:
        return Session(server)
    except (OSError, ValueError) as error:
        raise UsageError(f"the MCP server {server.name} cannot be started: {error}") from None


def _offers(server: Server, session: Session, seconds: float) -> list[Offer]:
    """What a server offers; one that does not say so is ended."""
    try:
        return session.tools(seconds)
    except BaseException as error:
        session.close(is_urgent=True)
        if not isinstance(error, Exception):
            raise
        why = f"no answer in {seconds:g} s" if isinstance(error, TimeoutError) else str(error)
        raise UsageError(
            f"the MCP server {server.name} did not start: {why} ({session.obituary()})"
        ) from None


def unique_names(
    servers: Sequence[str], tools: Sequence[Sequence[str]], taken: Collection[str]
) -> list[list[str]]:
    """What the model calls the tools of each server: every name only once."""
    counts = Counter(_allowed(tool) for names in tools for tool in names)
    used = {*taken, *(name for name, count in counts.items() if count > 1)}
    result: list[list[str]] = []
    for server, names in zip(servers, tools, strict=True):
        result.append([])
        for tool in names:
            name = _allowed(tool)
            if name in used:
                name = _allowed(f"{server}__{tool}")
            numbered = (f"{name}_{number}" for number in itertools.count(2))
            name = next(free for free in itertools.chain([name], numbered) if free not in used)
            used.add(name)
            result[-1].append(name)
    return result


def _allowed(name: str) -> str:
    """The name with `_` for what a function's name may not have."""
    allowed = re.sub(r"[^A-Za-z0-9_-]", "_", name)
    return allowed if re.match("[A-Za-z_]", allowed) else f"_{allowed}"


def _text(result: CallToolResult) -> str:
    """What a model can read of a result."""
    parts = [_part(part.model_dump(mode="json", by_alias=True)) for part in result.content]
    if result.structured_content is not None and not any(p.type == "text" for p in result.content):
        parts.append(json.dumps(result.structured_content, ensure_ascii=False, default=str))
    return "\n".join(parts)


def _part(part: Mapping[str, Any]) -> str:
    if part["type"] == "text":
        return part["text"]
    if part["type"] == "resource_link":
        return f"[link to {part['name']}: {part['uri']}]"
    if part["type"] != "resource":
        return f"[{part['type']}, {part['mimeType']}, {len(part['data']) * 3 // 4:,} bytes]"
    resource = part["resource"]
    if "text" in resource:
        return f"[{resource['uri']}]\n{resource['text']}"
    return f"[{resource['uri']}, {len(resource['blob']) * 3 // 4:,} bytes]"
