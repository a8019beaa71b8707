"""An MCP server for tests. Arguments: what it is to do wrong, if anything."""

from __future__ import annotations

import asyncio
import base64
import os
import subprocess
import time
from pathlib import Path
from typing import Any

from mcp.server import Server, ServerRequestContext
from mcp.server.stdio import stdio_server
from mcp.types import (
    BlobResourceContents,
    CallToolRequestParams,
    CallToolResult,
    EmbeddedResource,
    ImageContent,
    ListToolsResult,
    PaginatedRequestParams,
    ResourceLink,
    TextContent,
    TextResourceContents,
    Tool,
)

NAMES = [
    "add",
    "web search",
    "web.search",
    "parts",
    "structured",
    "fail",
    "crash",
    "hang",
    "flood",
    "environment",
    "child",
    "count",
    "noise",
    "pid",
    "ärger",
    "1st",
]
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"a": {"$ref": "#/$defs/Number"}, "b": {"type": "integer"}},
    "$defs": {"Number": {"type": "integer", "description": "A number."}},
}
DATA = base64.b64encode(b"123456").decode()


class Calls:
    """What the tools do, and how often they were called."""

    def __init__(self) -> None:
        self.count = 0

    async def __call__(
        self, context: ServerRequestContext[Any], params: CallToolRequestParams
    ) -> CallToolResult:
        """The result of one call."""
        del context
        self.count += 1
        arguments = params.arguments or {}
        match params.name:
            case "add":
                return said(str(arguments["a"] + arguments["b"]))
            case "parts":
                return CallToolResult(content=parts())
            case "structured":
                return CallToolResult(content=[], structured_content={"degrees": 21})
            case "fail":
                return CallToolResult(content=said("no such city").content, is_error=True)
            case "crash":
                os.write(2, b"out of luck")
                os._exit(7)
            case "hang":
                time.sleep(60)
            case "flood":
                return said("x" * 3_000_000)
            case "environment":
                return said(f"{dict(os.environ)} {Path.cwd()}")
            case "child":
                return said(str(subprocess.Popen(["sleep", "60"]).pid))
            case "count":
                return said(str(self.count))
            case "pid":
                return said(str(os.getpid()))
            case "noise":
                os.write(1, b"this is no message\n")
                os.write(2, b"e" * 300_000)
                return said("still here")
            case name:
                return said(name)
        return said("")


def said(text: str) -> CallToolResult:
    """A result of one text."""
    return CallToolResult(content=[TextContent(text=text)])


def parts() -> list[Any]:
    """One part of each kind."""
    return [
        TextContent(text="first"),
        ImageContent(data=DATA, mime_type="image/png"),
        ResourceLink(name="notes", uri="file:///notes.txt"),
        EmbeddedResource(resource=TextResourceContents(uri="file:///a.txt", text="content")),
        EmbeddedResource(resource=BlobResourceContents(uri="file:///b.bin", blob=DATA)),
        TextContent(text="last"),
    ]


async def list_tools(
    context: ServerRequestContext[Any], params: PaginatedRequestParams | None
) -> ListToolsResult:
    """The tools, five on a page."""
    del context
    start = int(params.cursor) if params and params.cursor else 0
    page = [
        Tool(name=name, description=f"Does {name}.", input_schema=SCHEMA)
        for name in NAMES[start : start + 5]
    ]
    following = str(start + 5) if start + 5 < len(NAMES) else None
    return ListToolsResult(tools=page, next_cursor=following)


async def main() -> None:
    """Serve, until stdin ends."""
    server = Server("test", on_list_tools=list_tools, on_call_tool=Calls())
    async with stdio_server() as (read, write):
        await server.run(read, write, server.create_initialization_options())


if __name__ == "__main__":
    asyncio.run(main())
