"""What a traced launch touched: bytes by buffer, 64-byte segments by line, and what was wrong.

A segment is counted once for each time that the 32 lanes of a simdgroup execute a load or store
together; only the first threadgroups of a launch are sampled. It does not know caches: a segment
that two accesses share counts twice.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

__all__ = ["SEGMENT_BYTES", "Accesses", "Buffer", "Segments", "Site", "count"]

SEGMENT_BYTES = 64


@dataclass(frozen=True)
class Buffer:
    """A buffer of a traced launch: requests add up over threads, unique bytes count once."""

    name: str
    bytes: int
    requested_read: int
    unique_read: int
    requested_written: int
    unique_written: int


@dataclass(frozen=True)
class Site:
    """All sampled executions of one load or store."""

    line: str  # file:line
    buffer: str
    is_store: bool
    segments: int
    bytes: int


@dataclass(frozen=True)
class Segments:
    """Segments that accesses touched, and how many their bytes would fill."""

    segments: int = 0
    ideal: float = 0.0

    def __add__(self, other: Segments) -> Segments:
        return Segments(self.segments + other.segments, self.ideal + other.ideal)


@dataclass(frozen=True)
class Accesses(Segments):
    """The sum over a buffer, and the same for each file:line."""

    lines: dict[str, Segments] = field(default_factory=dict[str, Segments])


def count(sites: Iterable[Site]) -> Accesses:
    """Segments of these sites, in all and by line."""
    total, lines = Segments(), dict[str, Segments]()
    for site in sites:
        here = Segments(site.segments, site.bytes / SEGMENT_BYTES)
        total += here
        lines[site.line] = lines.get(site.line, Segments()) + here
    return Accesses(total.segments, total.ideal, lines)
