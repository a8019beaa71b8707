"""A user's file of functions, for the tests: well-behaved ones, and others."""

from __future__ import annotations

import contextlib
import ctypes
import os
import stat
import subprocess
import sys
import time
from dataclasses import dataclass
from enum import Enum
from textwrap import dedent
from typing import Any, Literal

from typing_extensions import TypedDict

_calls = 0
_fork = 0


class Unit(Enum):
    """Degrees."""

    CELSIUS = "c"
    KELVIN = "k"


@dataclass
class Place:
    """Where."""

    city: str
    height: float = 0.0


class Period(TypedDict):
    """When."""

    days: int


def get_weather(city: str, unit: Unit = Unit.CELSIUS, days: int | None = None) -> str:
    """Tell the weather of a city.

    It is always fine.

    Args:
        city: The name of the city,
            in English.
        unit (Unit): What to measure in.
        days: How many.

    Returns:
        A sentence.
    """
    return f"fine in {city}, {unit.name}, {days}"


def plan(
    place: Place, periods: list[Period], mode: Literal["walk", "ski"], extra: dict[str, Any]
) -> dict[str, Any]:
    """Plan a trip."""
    return {"place": place, "days": sum(p["days"] for p in periods), "mode": mode} | extra


async def later(seconds: float) -> str:
    """Wait."""
    import asyncio

    await asyncio.sleep(seconds)
    return f"slept in {id(asyncio.get_running_loop())}"


def count() -> int:
    """How often this was called."""
    global _calls
    _calls += 1
    return _calls


def speak(text: str) -> None:
    """Print."""
    sys.stdout.write(text)


def fail() -> None:
    """Raise."""
    raise ValueError("no such city")


def invalid() -> None:
    """Raise what pydantic raises for arguments."""
    from pydantic import TypeAdapter

    TypeAdapter(int).validate_python("many")


def leave(code: int) -> None:
    """End the process."""
    sys.stderr.write("bye\n")
    sys.stderr.flush()
    os._exit(code)


def crash() -> None:
    """Read where nothing is."""
    ctypes.string_at(0)


def quit_politely() -> None:
    """Ask to end the process."""
    sys.exit("enough")


def hang() -> None:
    """Never end."""
    time.sleep(60)


def flood(size: int) -> str:
    """Return and write a lot."""
    os.write(1, b"o" * size)
    os.write(2, b"e" * size + b"\n")
    return "x" * size


def child() -> int:
    """Start a process."""
    return subprocess.Popen(["sleep", "60"]).pid


def fork() -> str:
    """Return twice, as a careless function does; the child only if it has no pipe to us."""
    global _fork
    _fork = os.fork()
    if _fork == 0 and _pipes():
        os._exit(9)
    return "parent" if _fork else "child"


def last_fork() -> int:
    """How it ended."""
    return os.waitpid(_fork, 0)[1]


def process() -> int:
    """Where this runs."""
    return os.getpid()


def fork_and_leave() -> None:
    """End the process, but not its fork."""
    if os.fork() == 0:
        time.sleep(60)
    os._exit(3)


def forge() -> str:
    """Write an answer to something else into every pipe there is."""
    for pipe in _pipes():
        with contextlib.suppress(OSError):
            os.write(pipe, b'{"id": 0, "result": "forged"}\n')
    time.sleep(0.2)  # so that it comes alone
    return "true"


def _pipes() -> list[int]:
    found: list[int] = []
    for pipe in range(3, 20):
        with contextlib.suppress(OSError):
            found += [pipe] if stat.S_ISFIFO(os.fstat(pipe).st_mode) else []
    return found


def read_input() -> str:
    """What is on stdin."""
    return sys.stdin.read() or _hidden()


def _hidden() -> str:
    return dedent("  not for the model")
