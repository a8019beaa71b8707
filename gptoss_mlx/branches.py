"""The tree of cached prefixes: branches of tokens, and the places where a sequence can go on.

A branch begins somewhere within its parent, and holds the tokens that follow there with their
segment of the full layers. What is done with them, and when they go, is the matter of prefix.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from gptoss_mlx.cache import Windows
from gptoss_mlx.segment import Segment
from gptoss_mlx.sequence import common_prefix

__all__ = ["Branch", "Contents", "Held", "Path", "Place", "Source", "Tree", "Writer", "path_to"]


class Contents(NamedTuple):
    """The memory of a branch: its segment, and the windows of its places."""

    segment: Segment
    windows: list[Windows]


class Source(Protocol):
    """Where a branch is kept besides."""

    nbytes: int
    end: int  # the position behind the last token that is kept

    def load(self) -> Contents | None:
        """Bring it into memory; None if it turns out to be damaged."""
        ...


class Held(NamedTuple):
    """A branch as it is in memory: all tokens to its end, its own from `start` on."""

    tokens: list[int]
    start: int
    contents: Contents
    source: Source | None  # where it, or a shorter one that it has grown from, is kept already


class Writer(Protocol):
    """Whoever appends to a branch."""

    def share(self, branch: Branch) -> None:
        """Append to another one from now on: others are going to read this one."""
        ...


@dataclass
class Place:
    """Where a sequence can go on; without windows as long as the branch is not in memory."""

    windows: Windows | None
    used: int  # when last


@dataclass(eq=False)
class Branch:
    """Consecutive tokens, from position `start` on, and their keys and values."""

    start: int
    segment: Segment
    parent: Branch | None = None
    tokens: list[int] = field(default_factory=list[int])
    places: dict[int, Place] = field(default_factory=dict[int, Place])  # by position
    children: list[Branch] = field(default_factory=list["Branch"])
    writer: Writer | None = None
    readers: int = 0  # leases that share the segment, and so forbid to append to it
    source: Source | None = None  # where its first tokens and places are kept, too
    is_loaded: bool = True

    @property
    def end(self) -> int:
        """The position behind the last token."""
        return self.start + len(self.tokens)

    @property
    def is_idle(self) -> bool:
        """Whether no running sequence uses it."""
        return self.writer is None and not self.readers

    @property
    def needed_end(self) -> int:
        """The last position that a sequence could go on from, here or in a child."""
        return max([self.start, *self.places, *(child.start for child in self.children)])


Path = list[tuple[Branch, int]]  # from the root: branches, and how many tokens of each


class Tree:
    """The branches that begin at position 0, and all that follow them."""

    def __init__(self) -> None:
        self._roots: list[Branch] = []

    def __iter__(self) -> Iterator[Branch]:
        """All branches, parents before their children."""
        stack = list(self._roots)
        while stack:
            branch = stack.pop()
            yield branch
            stack += branch.children

    def add(self, branch: Branch) -> Branch:
        """Add it to its parent, or to the roots."""
        self._siblings(branch).append(branch)
        return branch

    def remove(self, branch: Branch) -> None:
        """Remove it with all that follows it, if it is there."""
        siblings = self._siblings(branch)
        if branch in siblings:
            siblings.remove(branch)

    def find(self, prompt: Sequence[int], limit: int) -> tuple[Branch | None, int]:
        """The furthest place on the prompt's path, at most at position `limit`."""
        found, best = None, 0
        for branch, matched in self._along(prompt, limit):
            here = max((p for p in branch.places if p <= matched), default=0)
            if here > best:
                found, best = branch, here
        return found, best

    def holder(self, tokens: Sequence[int], position: int) -> Branch | None:
        """The branch on the path of these tokens that has the last one before a position."""
        on_path = self._along(tokens, position)
        return next((b for b, matched in on_path if b.start < position == matched), None)

    def _along(self, tokens: Sequence[int], end: int) -> Iterator[tuple[Branch, int]]:
        """The branches that these tokens lead to, and up to which position they are alike."""
        stack = list(self._roots)
        while stack:
            branch = stack.pop()
            following = tokens[branch.start : min(end, branch.end)]
            matched = branch.start + common_prefix(branch.tokens, following)
            yield branch, matched
            stack += [child for child in branch.children if child.start <= matched]

    def _siblings(self, branch: Branch) -> list[Branch]:
        return self._roots if branch.parent is None else branch.parent.children


def path_to(branch: Branch, position: int) -> Path:
    """The branches from the root to a position, and how many tokens of each lie on the way."""
    path: Path = []
    node: Branch | None = branch
    while node is not None:
        if position > node.start:
            path.append((node, position - node.start))
        position, node = node.start, node.parent
    return path[::-1]
