"""One launch of a compiled kernel in the runtime: buffers between guard zones, what came of it.

The structures mirror those of runtime.cpp.
"""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from . import compiler
from .source import ENTRY
from .trace import Buffer, Site

__all__ = ["UNTOUCHED", "GuardedBuffer", "Outcome", "Size", "execute"]

Size = tuple[int, int, int]
Bytes = NDArray[np.uint8]
UNTOUCHED = 0xFF  # bytes that nobody wrote; NaN as floats
_GUARD_BYTES = 16384
_ALIGNMENT = 256
_MAX_WORKERS = 2  # threads of the operating system
_MAX_SITES = 4096
_SAMPLED_GROUPS = 4


class GuardedBuffer:
    """A buffer's bytes with a zone before and after them that nothing may change."""

    def __init__(self, name: str, contents: Bytes, writable: bool) -> None:
        self.name = name
        self.writable = writable
        self._memory = np.full(2 * _GUARD_BYTES + _ALIGNMENT + contents.size, UNTOUCHED, np.uint8)
        start = _GUARD_BYTES + -(self._memory.ctypes.data + _GUARD_BYTES) % _ALIGNMENT
        self._start, self._end = start, start + contents.size
        self.contents = self._memory[start : self._end]
        self.contents[:] = contents
        self.touched = np.zeros(contents.size, np.uint8)  # traced: 1 read, 2 written

    def overrun(self) -> str | None:
        """Where a byte of the zones has changed."""
        for zone, start in (
            (self._memory[: self._start], 0),
            (self._memory[self._end :], self._end),
        ):
            changed = np.flatnonzero(zone != UNTOUCHED)
            if changed.size:
                at = int(changed[0]) + start - self._start
                return f"{self.name}: written at byte {at} of {self.contents.size}"
        return None


@dataclass(frozen=True)
class Outcome:
    """What the runtime says of a launch; `error` ended it, `problems` did not."""

    seconds: float
    threadgroup_bytes: int
    error: str | None
    problems: list[str]
    buffers: list[Buffer]
    sites: list[Site]


class _Buffer(ctypes.Structure):
    _fields_ = [
        ("base", ctypes.c_void_p),
        ("bytes", ctypes.c_uint64),
        ("writable", ctypes.c_uint64),
        ("touched", ctypes.c_void_p),
        ("read", ctypes.c_uint64),
        ("written", ctypes.c_uint64),
    ]


class _Site(ctypes.Structure):
    _fields_ = [(n, ctypes.c_uint64) for n in ("pc", "buffer", "is_store", "segments", "bytes")]


class _Launch(ctypes.Structure):
    _fields_ = [
        ("kernel", ctypes.c_void_p),
        ("addresses", ctypes.c_void_p),
        ("buffers", ctypes.c_void_p),
        ("sites", ctypes.c_void_p),
        *[(name, ctypes.c_uint64) for name in ("num_buffers", "max_sites", "num_sites")],
        *[(name, ctypes.c_uint32 * 3) for name in ("grid", "group")],
        *[(name, ctypes.c_uint32) for name in ("threads", "order", "seed", "strict", "trace")],
        ("sampled_groups", ctypes.c_uint32),
        ("threadgroup_bytes", ctypes.c_uint64),
        ("error", ctypes.c_char * 1024),
        ("problems", ctypes.c_char * (1 << 14)),
    ]


def execute(
    library: Path,
    buffers: Sequence[GuardedBuffer],
    grid: Size,
    group: Size,
    *,
    order: int,
    seed: int,
    strict: bool,
    trace: bool,
) -> Outcome:
    """Run all threads of a grid; `order` is 0 forward, 1 reverse, 2 random."""
    addresses = (ctypes.c_void_p * len(buffers))(*[b.contents.ctypes.data for b in buffers])
    ranges = (_Buffer * len(buffers))(
        *[
            (b.contents.ctypes.data, b.contents.size, b.writable, b.touched.ctypes.data, 0, 0)
            for b in buffers
        ]
    )
    sites = (_Site * (_MAX_SITES if trace else 0))()
    launch = _Launch(
        kernel=ctypes.cast(_load(library)[ENTRY], ctypes.c_void_p),
        addresses=ctypes.addressof(addresses),
        buffers=ctypes.addressof(ranges),
        sites=ctypes.addressof(sites),
        num_buffers=len(buffers),
        max_sites=len(sites),
        grid=grid,
        group=group,
        threads=1 if trace else min(_MAX_WORKERS, os.cpu_count() or 1),
        order=order,
        seed=seed,
        strict=strict,
        trace=trace,
        sampled_groups=_SAMPLED_GROUPS,
    )
    start = time.perf_counter()
    compiler.load_runtime().host_launch(ctypes.byref(launch))
    seconds = time.perf_counter() - start
    names = [b.name for b in buffers]
    problems = _problems(library, launch.problems.decode(), names)
    error = launch.error.decode() or None
    if not trace:
        error = error or next(filter(None, (b.overrun() for b in buffers)), None)
        return Outcome(seconds, launch.threadgroup_bytes, error, problems, [], [])
    return Outcome(
        *(seconds, launch.threadgroup_bytes, error, problems),
        [_traced_buffer(b, r) for b, r in zip(buffers, ranges, strict=True)],
        _sites(library, sites[: launch.num_sites], names),
    )


@cache
def _load(library: Path) -> ctypes.CDLL:
    compiler.load_runtime()
    return ctypes.CDLL(str(library))


def _problems(library: Path, text: str, names: list[str]) -> list[str]:
    """The runtime's lines, with file:line for the instruction and names for buffers' numbers."""
    rows = [row.partition(" ")[::2] for row in text.splitlines()]
    lines = compiler.lines_of(library, [int(offset) for offset, _ in rows])
    found = (f"{line}: {_named(what, names)}" for line, (_, what) in zip(lines, rows, strict=True))
    return list(dict.fromkeys(found))  # a line may be several instructions


def _named(what: str, names: list[str]) -> str:
    head, colon, rest = what.partition(":")
    word, _, number = head.partition(" ")
    return names[int(number)] + colon + rest if word == "buffer" else what


def _traced_buffer(buffer: GuardedBuffer, counted: _Buffer) -> Buffer:
    touched = buffer.touched
    read, written = (int(np.count_nonzero(touched & bit)) for bit in (1, 2))
    return Buffer(buffer.name, buffer.contents.size, counted.read, read, counted.written, written)


def _sites(library: Path, sites: Sequence[_Site], names: list[str]) -> list[Site]:
    lines = compiler.lines_of(library, [s.pc for s in sites])
    return [
        Site(line, names[int(s.buffer)], bool(s.is_store), s.segments, s.bytes)
        for line, s in zip(lines, sites, strict=True)
    ]
