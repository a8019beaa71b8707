"""What a child process tells its parent, a line of JSON each.

It does not know what was measured by whom.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any, Literal

__all__ = ["Doing", "Event", "Failure", "Loaded", "Reading", "from_line", "to_line"]


@dataclass(frozen=True)
class Doing:
    """What it is about to do."""

    text: str


@dataclass(frozen=True)
class Loaded:
    """The model is in memory. nbytes: that MLX holds for it. dtype, kernels: as `Side` has them."""

    dtype: str
    kernels: str
    seconds: float
    nbytes: int


@dataclass(frozen=True)
class Reading:
    """One context, or one batch, measured once.

    decode: tokens a second, of all sequences together; None if at no time all of them decoded.
    peak: bytes that MLX held at most meanwhile. rss: of the process, so far. cold, warm: seconds to
    the first token of a prompt, and of the next turn, of which so many tokens were cached. ids:
    what was decoded.
    """

    kind: Literal["context", "batch"]
    size: int
    decode: float | None
    peak: int
    rss: int
    cold: float | None = None
    warm: float | None = None
    cached: int = 0
    ids: tuple[int, ...] = ()


@dataclass(frozen=True)
class Failure:
    """Nothing more comes: one line why, and what the process said besides."""

    text: str
    details: str = ""


Event = Doing | Loaded | Reading | Failure
_KINDS: dict[str, type[Event]] = {kind.__name__: kind for kind in (Doing, Loaded, Reading, Failure)}


def to_line(event: Event) -> str:
    """JSON in one line."""
    return json.dumps([type(event).__name__, asdict(event)])


def from_line(line: str) -> Event:
    """What `to_line` wrote."""
    fields: Any
    kind, fields = json.loads(line)
    if "ids" in fields:  # JSON knows no tuples
        fields["ids"] = tuple(fields["ids"])
    return _KINDS[kind](**fields)
