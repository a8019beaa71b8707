"""What runs functions: a child process for a Python file, and a command for each call.

Here is the parent's side; worker.py is what the child does.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, cast

from gptoss_mlx.errors import ToolError, UsageError
from gptoss_mlx.tools.children import MAX_OUTPUT_BYTES, Tail, ending, exchange, kill

__all__ = ["LOAD_SECONDS", "Command", "Worker"]

LOAD_SECONDS = 60.0  # that a file may take for its imports

_WORKER = Path(__file__).with_name("worker.py")
_SHOWN = 1_000  # characters of what a child wrote before it failed


class Worker:
    """A Python file in a child process, which lives on between calls and is started when needed."""

    def __init__(self, path: Path, seconds: float) -> None:
        self._path = path.absolute()
        self._seconds = seconds
        self._child: _Child | None = None
        self._is_closed = False
        self._lock = threading.Lock()  # held while a call runs

    def describe(self) -> list[dict[str, Any]]:
        """The functions that there are: name, description, parameters.

        Raises:
            UsageError: the file cannot be loaded.
        """
        try:
            with self._lock:
                return self._start()
        except ToolError as error:
            raise UsageError(" ".join(str(error).split())) from None

    def call(self, name: str, arguments: Mapping[str, Any]) -> str:
        """The text a function returns.

        Raises:
            ToolError: it did not; after a crash or a timeout the next call starts anew.
        """
        with self._lock:
            if self._is_closed:
                raise ToolError(f"{name}: the functions were closed")
            if self._child is None:
                self._start()
            request = {"name": name, "arguments": arguments}
            answer = self._ask(request, name, self._seconds)
        if "error" in answer:
            raise ToolError(answer["error"])
        return answer["result"]

    def close(self) -> None:
        """Kill the child. A call that runs fails."""
        self._is_closed = True
        if child := self._child:
            kill(child.process)
        with self._lock:
            self._drop()

    def _start(self) -> list[dict[str, Any]]:
        self._child = _Child(self._path)
        if self._is_closed:  # meanwhile: close() may have come too early to see the child
            kill(self._child.process)
        answer = self._ask(None, f"{self._path.name}, while it was loaded,", LOAD_SECONDS)
        if "error" in answer:
            self._drop()
            raise ToolError(f"{self._path}: {answer['error']}")
        return answer["functions"]

    def _ask(self, request: Mapping[str, Any] | None, who: str, seconds: float) -> dict[str, Any]:
        child = self._child
        assert child
        try:
            return child.ask(request, seconds)
        except TimeoutError:
            self._drop()
            lost = "it was stopped, and what the file kept in memory is lost"
            raise ToolError(f"{who} took longer than {seconds:g} s: {lost}") from None
        except (ValueError, OverflowError):
            self._drop()
            text = f"{who}: something else than its answer came back, so its process was stopped"
            raise ToolError(f"{text}: the next call starts a new one") from None
        except EOFError:
            kill(child.process)
            said = child.output.text()[-_SHOWN:]
            self._drop()
            how = "it was closed" if self._is_closed else ending(child.process)
            raise ToolError(
                f"{who} ended its process ({how}): the next call starts a new one. {said}".strip()
            ) from None
        except BaseException:
            self._drop()
            raise

    def _drop(self) -> None:
        if self._child:
            self._child.end()
        self._child = None


class _Child:
    """One run of the worker: its process, its pipes, and what it prints outside of calls."""

    def __init__(self, path: Path) -> None:
        ours: list[IO[bytes]] = []
        theirs: list[int] = []
        request_pipe, reply_pipe = os.pipe(), os.pipe()
        theirs += request_pipe[0], reply_pipe[1]
        ours += os.fdopen(request_pipe[1], "wb", 0), os.fdopen(reply_pipe[0], "rb", 0)
        self.requests, self.replies = ours
        try:
            # -P: modules of this package do not shadow others
            self.process = subprocess.Popen(
                [sys.executable, "-P", str(_WORKER), str(path), *map(str, theirs)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=theirs,
                start_new_session=True,
            )
        finally:
            for pipe in theirs:
                os.close(pipe)
        assert self.process.stdout
        self.output = Tail(self.process.stdout)
        self._number = 0  # of the request that is answered next

    def ask(self, request: Mapping[str, Any] | None, seconds: float) -> dict[str, Any]:
        """The answer to a request; to none, what the worker says when it has loaded its file.

        Raises:
            ValueError: what came back is no answer to it. Others as in `exchange`.
        """
        number, self._number = self._number, self._number + 1
        given = b"" if request is None else f"{json.dumps({'id': number, **request})}\n".encode()
        line = exchange(self.process, self.requests, given, self.replies, seconds, one_line=True)
        answer: object = json.loads(line)
        if not isinstance(answer, dict) or cast("dict[str, Any]", answer).get("id") != number:
            raise ValueError("an answer to something else")
        return cast("dict[str, Any]", answer)

    def end(self) -> None:
        """Kill it, and close the pipes."""
        kill(self.process)
        self.requests.close()
        self.replies.close()
        self.output.text()


class Command:
    """A program that gets the arguments as JSON on stdin, and whose stdout is the result."""

    def __init__(self, command: Sequence[str], seconds: float) -> None:
        self._command = command
        self._seconds = seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._is_closed = False

    def call(self, name: str, arguments: Mapping[str, Any]) -> str:
        """What the program writes.

        Raises:
            ToolError: it fails, takes too long, or writes too much; it was killed then.
        """
        if self._is_closed:
            raise ToolError(f"{name}: the functions were closed")
        pipe = subprocess.PIPE
        try:
            process = subprocess.Popen(
                self._command, stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True
            )
        except OSError as error:
            raise ToolError(f"{name} could not be started: {error}") from error
        self._process = process
        if self._is_closed:
            kill(process)
        assert process.stdin
        assert process.stdout
        assert process.stderr
        errors = Tail(process.stderr)
        given = json.dumps(arguments).encode()
        try:
            with process.stdin as stdin, process.stdout as stdout:
                output = exchange(process, stdin, given, stdout, self._seconds)
            process.wait(self._seconds)
        except (TimeoutError, subprocess.TimeoutExpired):
            raise ToolError(f"{name} took longer than {self._seconds:g} s: stopped") from None
        except OverflowError:
            raise ToolError(f"{name} wrote more than {MAX_OUTPUT_BYTES:,} bytes: stopped") from None
        finally:
            kill(process)
            said = errors.text()[-_SHOWN:]
        if process.returncode:
            raise ToolError(f"{name} failed ({ending(process)}): {said}".removesuffix(": "))
        return output.decode("utf-8", "replace")

    def close(self) -> None:
        """Kill the program, if it runs; none is run from now on."""
        self._is_closed = True
        if self._process and self._process.poll() is None:
            kill(self._process)
