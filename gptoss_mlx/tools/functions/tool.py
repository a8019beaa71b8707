"""Functions of the user's: a Python file, or a JSON file of schemas and the commands they run.

Both run in child processes. It does not shut them in: what a user gives to the model to call may do
what the user may. It does not know who answers the calls of functions without a command.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, cast

from gptoss_mlx.errors import ToolError, UsageError
from gptoss_mlx.harmony import FunctionTool
from gptoss_mlx.tools.base import Preview, Tool, json_arguments
from gptoss_mlx.tools.calls import NAME, call_preview, check_arguments, inlined, schema_error
from gptoss_mlx.tools.functions.process import Command, Worker

__all__ = ["FunctionsTool", "load_functions"]

TIMEOUT = 60.0  # seconds that a call may take
_NO_PARAMETERS: dict[str, Any] = {"type": "object", "properties": {}}


class _Runner(Protocol):
    def call(self, name: str, arguments: Mapping[str, Any]) -> str: ...

    def close(self) -> None: ...


class FunctionsTool(Tool):
    """Functions that the model calls with a JSON object.

    Args:
        functions: each with what runs it, or None where whoever holds the conversation answers.
        name: the name of the file they come from.
        checks: whether arguments are checked against the schema here; a Python file does it itself.
    """

    def __init__(
        self,
        functions: Sequence[tuple[FunctionTool, _Runner | None]],
        name: str,
        checks: bool = True,
    ) -> None:
        self.name = name
        self._runners = {function.name: runner for function, runner in functions if runner}
        self._schemas = {function.name: function.parameters or {} for function, _ in functions}
        self._checks = checks
        self.functions = tuple(function for function, runner in functions if runner)
        self.client_functions = tuple(function for function, runner in functions if not runner)

    @classmethod
    def from_python(cls, path: Path, timeout: float = TIMEOUT) -> FunctionsTool:
        """The public functions of a Python file; docstrings and type hints describe them.

        They are those of `__all__`, or all that the file defines without an underscore. The file
        runs in a child process that is kept between calls, and begins anew after a crash, a timeout
        (`timeout` is in seconds) or Ctrl-C. A text is the result as it is, other values as JSON;
        of a function that returns None, what it printed.

        Raises:
            UsageError: it cannot be loaded, or has no functions.
        """
        _check_file(path)
        worker = Worker(path, timeout)
        try:
            found = [_function(entry, str(path)) for entry in worker.describe()]
            _check_names(found, path)
        except BaseException:
            worker.close()
            raise
        return cls([(function, worker) for function in found], path.name, checks=False)

    @classmethod
    def from_json(cls, path: Path, timeout: float = TIMEOUT) -> FunctionsTool:
        """The functions of a JSON file: a list of name, description, parameters and command.

        A command is a list: a program (with a slash: relative to the file) and its arguments. It
        gets the arguments of the call as JSON on stdin, what it writes is the result, and all but
        exit code 0 is an error. Entries without one are `client_functions`.

        Raises:
            UsageError: the file is not like that.
        """
        _check_file(path)
        try:
            entries: object = json.loads(path.read_text("utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise UsageError(f"{path} is not JSON: {error}") from None
        if not isinstance(entries, list):
            raise UsageError(f"{path} must have a list of functions: [{{...}}, ...]")
        found: list[tuple[FunctionTool, _Runner | None]] = []
        for number, entry in enumerate(cast("list[object]", entries), 1):
            where = f"{path}: function {number}"
            fields = _unwrapped(entry, where)
            function = _function(fields, where)
            command = _command(fields, path, where)
            found.append((function, Command(command, timeout) if command else None))
        _check_names([function for function, _ in found], path)
        return cls(found, path.name)

    @property
    def recipients(self) -> Sequence[str]:
        """What calls that are run here are addressed to."""
        return tuple(f"functions.{name}" for name in self._runners)

    def preview(self, recipient: str, content: str) -> Preview:
        """The call as Python would write it; its arguments as JSON where they are long."""
        self._arguments(recipient, content)
        return call_preview(_bare(recipient), content)

    def run(self, recipient: str, content: str) -> str:
        """Call the function; returns its result as text."""
        arguments = self._arguments(recipient, content)
        return self._runners[_bare(recipient)].call(_bare(recipient), arguments)

    def close(self) -> None:
        """Kill what runs."""
        for runner in {id(runner): runner for runner in self._runners.values()}.values():
            runner.close()

    def _arguments(self, recipient: str, content: str) -> dict[str, Any]:
        if _bare(recipient) not in self._runners:
            raise ToolError(f"{recipient} is not run here")
        arguments = json_arguments(content)
        if self._checks:
            check_arguments(arguments, self._schemas[_bare(recipient)])
        return arguments


def load_functions(path: Path, timeout: float = TIMEOUT) -> FunctionsTool:
    """The functions of a .py or .json file.

    Raises:
        UsageError: it is neither, or cannot be used.
    """
    if path.suffix == ".py":
        return FunctionsTool.from_python(path, timeout)
    if path.suffix == ".json":
        return FunctionsTool.from_json(path, timeout)
    raise UsageError(f"{path}: functions come from a .py or a .json file")


def _bare(recipient: str) -> str:
    return recipient.removeprefix("functions.")


def _check_file(path: Path) -> None:
    if not path.is_file():
        raise UsageError(f"{path}: there is no such file")


def _unwrapped(entry: object, where: str) -> dict[str, Any]:
    """The fields of an entry, also where it is {"type": "function", "function": {...}}."""
    if not isinstance(entry, dict):
        raise UsageError(f"{where} is no object")
    fields = cast("dict[str, Any]", entry)
    inner: object = fields.get("function")
    return {**fields, **cast("dict[str, Any]", inner)} if isinstance(inner, dict) else fields


def _function(fields: Mapping[str, Any], where: str) -> FunctionTool:
    name, description = fields.get("name"), fields.get("description") or ""
    if not isinstance(name, str) or not NAME.match(name):
        raise UsageError(f"{where}: the name {name!r} is not of letters, digits, _ and -")
    if not isinstance(description, str):
        raise UsageError(f"{where}: the description of {name} is no text")
    schema = fields.get("parameters") or _NO_PARAMETERS
    if problem := schema_error(schema):
        raise UsageError(f"{where}: the parameters of {name} are no schema: {problem}")
    return FunctionTool(name, description, inlined(schema))


def _command(fields: Mapping[str, Any], path: Path, where: str) -> list[str] | None:
    command: object = fields.get("command")
    if command is None:
        return None
    parts = cast("list[object]", command) if isinstance(command, list) else []
    words = [part for part in parts if isinstance(part, str)]
    if not words or len(words) < len(parts):
        raise UsageError(f'{where}: the command must be a list, ["program", "argument", ...]')
    program = str(path.parent / words[0]) if "/" in words[0] else words[0]
    if shutil.which(program) is None:
        raise UsageError(f"{where}: there is no program {program}")
    return [program, *words[1:]]


def _check_names(functions: Sequence[FunctionTool], path: Path) -> None:
    if not functions:
        raise UsageError(f"{path} has no functions: define one without an underscore at its start")
    names = [function.name for function in functions]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UsageError(f"{path} has two functions {twice[0]}")
