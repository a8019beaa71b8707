"""The child process that a user's Python file runs in: describes its functions, then calls them.

Run as a script, with the file and two pipes: `worker.py FILE REQUESTS REPLIES`. One JSON object a
line: first {"id": 0, "functions": [...]} or {"id": 0, "error": text}; then, for each {"id", "name",
"arguments"}, a {"id", "result": text} or {"id", "error": text}. When the requests end, everything
here is killed. What a function forks has neither pipe, and ends where it would answer.

It imports nothing of gptoss_mlx: the file is alone here, with the modules beside it.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import importlib.util
import inspect
import io
import json
import os
import queue
import re
import signal
import sys
import threading
import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import ModuleType
from typing import Any, cast

MAX_RESULT = 1_000_000  # characters
_SECTION = re.compile(r"^(Args|Arguments|Parameters|Returns|Raises|Yields|Examples?|Notes?):\s*$")
_ARGUMENT = re.compile(r"^(\s*)\*{0,2}(\w+)\s*(?:\([^)]*\))?:\s*(.*)$")


class Printed(io.TextIOBase):
    """What is printed during a call, up to a limit."""

    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str, /) -> int:
        """Keep it, as long as there is room."""
        self.text += text[: MAX_RESULT - len(self.text)]
        return len(text)


def load(path: Path) -> ModuleType:
    """The file as a module, which sees the modules beside it and is no `__main__`."""
    sys.path.insert(0, str(path.parent))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def public_functions(module: ModuleType) -> dict[str, Callable[..., Any]]:
    """By name: those of `__all__`, or else those defined here without an underscore."""
    names = getattr(module, "__all__", None)
    found = {name: getattr(module, name) for name in (names or vars(module))}
    return {
        name: value
        for name, value in found.items()
        if callable(value)
        and inspect.isfunction(inspect.unwrap(value))
        and (names or (not name.startswith("_") and value.__module__ == module.__name__))
    }


def describe(name: str, function: Callable[..., Any]) -> dict[str, Any]:
    """Name, description and JSON schema, from the signature and the docstring."""
    from pydantic import PydanticUserError, TypeAdapter

    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.VAR_POSITIONAL):
            raise TypeError(f"{name}: the parameter {parameter} cannot be given by name")
    try:
        schema = TypeAdapter(cast("Any", function)).json_schema()
    except PydanticUserError as error:
        raise TypeError(f"{name}: {str(error).splitlines()[0]}") from None
    text, arguments = documented(inspect.getdoc(function) or "")
    for key, value in schema.get("properties", {}).items():
        value.pop("title", None)
        if key in arguments:
            value.setdefault("description", arguments[key])
    return {"name": name, "description": text, "parameters": schema}


def documented(docstring: str) -> tuple[str, dict[str, str]]:
    """(what it does, and what each argument is), of a docstring in Google's style or of none."""
    text: list[str] = []
    arguments: dict[str, str] = {}
    section = name = ""
    indent = ""
    for line in docstring.splitlines():
        if found := _SECTION.match(line):
            section, name, indent = found[1], "", ""
        elif not section:
            text.append(line)
        elif section in ("Args", "Arguments", "Parameters"):
            found = _ARGUMENT.match(line)
            if found and (not indent or found[1] == indent):
                indent, name = found[1], found[2]
                arguments[name] = found[3]
            elif name and line.strip():
                arguments[name] = f"{arguments[name]} {line.strip()}".strip()
    return "\n".join(text).strip(), arguments


class Caller:
    """Calls functions by name; asynchronous ones all in one event loop."""

    def __init__(self, path: Path, functions: dict[str, Callable[..., Any]]) -> None:
        from pydantic import validate_call

        self._path = path
        self._functions = {name: validate_call(value) for name, value in functions.items()}
        self._runner = asyncio.Runner()

    def call(self, name: str, arguments: dict[str, Any]) -> dict[str, str]:
        """What it returns, as text; or what was wrong, of the arguments or in the function."""
        from pydantic import ValidationError

        printed = Printed()
        try:
            with contextlib.redirect_stdout(printed):
                value = self._functions[name](**arguments)
                if inspect.isawaitable(value):
                    value = self._runner.run(_awaited(value))
            return {"result": as_text(value, printed.text)[:MAX_RESULT]}
        except ValidationError as error:
            if trace_line(error, self._path):
                return {"error": f"{name} raised {summary(error, self._path)}"}
            wrong = "; ".join(
                f"{'.'.join(map(str, detail['loc']))}: {detail['msg']}" for detail in error.errors()
            )
            return {"error": f"the arguments of {name} are wrong: {wrong}"}
        except BaseException as error:
            return {"error": f"{name} raised {summary(error, self._path)}"}


async def _awaited(value: Awaitable[Any]) -> Any:
    return await value


def as_text(value: object, printed: str) -> str:
    """Text as it is, anything else as JSON; for nothing, what was printed."""
    from pydantic_core import to_json

    if value is None and printed:
        return printed
    return value if isinstance(value, str) else to_json(value, fallback=str).decode()


def trace_line(error: BaseException, path: Path) -> int | None:
    """Where in the user's file it happened."""
    lines = [
        frame.lineno
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename == str(path)
    ]
    return lines[-1] if lines else getattr(error, "lineno", None)


def summary(error: BaseException, path: Path) -> str:
    """The last line of a traceback, and where it was."""
    text = "".join(traceback.format_exception_only(error)).strip()
    if isinstance(error, SyntaxError):
        text = f"{type(error).__name__}: {error.msg}"
    line = trace_line(error, path)
    return f"{text} ({path.name}, line {line})" if line else text


def serve(
    path: Path, requests: queue.SimpleQueue[dict[str, Any]], reply: Callable[..., None]
) -> None:
    """Load and describe, then answer requests until this process is killed."""
    try:
        functions = public_functions(load(path))
        reply(id=0, functions=[describe(name, value) for name, value in functions.items()])
        caller = Caller(path, functions)
    except BaseException as error:
        reply(id=0, error=summary(error, path))
        return
    while True:
        request = requests.get()
        answer = caller.call(request["name"], request["arguments"])
        reply(id=request["id"], **answer)


def _close(pipe: int) -> None:
    with contextlib.suppress(OSError):  # a function may have closed it
        os.close(pipe)


def main() -> None:
    """Serve until the requests end, then kill the session."""
    path, request_pipe, reply_pipe = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    for pipe in (request_pipe, reply_pipe):  # what functions start or fork must not hold them
        os.set_inheritable(pipe, False)
        os.register_at_fork(after_in_child=functools.partial(_close, pipe))
    own = os.getpid()
    requests: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()

    def read() -> None:
        with os.fdopen(request_pipe, "rb", closefd=False) as lines:
            for line in lines:
                requests.put(cast("dict[str, Any]", json.loads(line)))
        os.killpg(0, signal.SIGKILL)

    def reply(**values: object) -> None:
        if os.getpid() != own:
            os._exit(0)
        line = json.dumps(values, default=str, ensure_ascii=False)
        with os.fdopen(reply_pipe, "wb", closefd=False) as replies:
            replies.write(f"{line}\n".encode("utf-8", "replace"))

    threading.Thread(target=read, daemon=True).start()
    serve(path, requests, reply)


if __name__ == "__main__":
    main()
