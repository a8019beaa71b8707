"""Which tokens' keys and values are already there, so that a prompt need not compute them again.

A tree of branches, as prompts begin alike and then differ: each holds consecutive tokens and their
segment of the full layers, and begins somewhere within its parent. A sequence can go on only where
there is a copy of the sliding windows, so a prompt reuses its longest known prefix, cut back to
the nearest of these. Nothing is copied for it: it shares the segments before, and appends to one
of its own, or to the last one where it ended.

    lease = cache.lease(prompt)      # lease.reused tokens need no prefill
    ... the model appends to lease.cache ...
    lease.commit(tokens, positions)  # now others may reuse them, from these positions on
    lease.release(tokens)

Keys are the very ids; the least recently used places are evicted when the byte budget is full.
It does not know what the tokens mean, nor when sequences run.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import mlx.core as mx

from gptoss_mlx.cache import Cache, Segment, Windows
from gptoss_mlx.config import ModelConfig
from gptoss_mlx.sequence import common_prefix

__all__ = ["Lease", "PrefixCache", "PrefixStats"]

_MOST_SHARED = 8  # segments of one sequence; each costs a launch per layer and token
_WORTH_A_COPY = 256  # positions that a segment can give back


@dataclass
class PrefixStats:
    """Counts since the start."""

    leases: int = 0
    prompt_tokens: int = 0
    reused_tokens: int = 0
    evictions: int = 0


@dataclass
class _Place:
    """Where a sequence can go on."""

    windows: Windows
    used: int  # when last


@dataclass(eq=False)
class _Branch:
    """Consecutive tokens, from position `start` on, and their keys and values."""

    start: int
    segment: Segment
    parent: _Branch | None = None
    tokens: list[int] = field(default_factory=list[int])
    places: dict[int, _Place] = field(default_factory=dict[int, _Place])  # by position
    children: list[_Branch] = field(default_factory=list["_Branch"])
    writer: Lease | None = None
    readers: int = 0  # leases that share the segment, and so forbid to append to it

    @property
    def end(self) -> int:
        """The position behind the last token."""
        return self.start + len(self.tokens)

    @property
    def is_idle(self) -> bool:
        return self.writer is None and not self.readers

    @property
    def needed_end(self) -> int:
        """The last position that a sequence could go on from, here or in a child."""
        return max([self.start, *self.places, *(child.start for child in self.children)])


class Lease:
    """What one running sequence holds of the tree: its cache, and the branch it writes."""

    def __init__(self, tree: PrefixCache, branch: _Branch, shared: list[tuple[_Branch, int]]):
        self.reused = 0
        self.cache: Cache
        self._tree = tree
        self._shared = shared
        self._written = [branch]  # the last is appended to
        branch.writer = self
        for other, _ in shared:
            other.readers += 1

    def commit(self, tokens: Sequence[int], positions: Sequence[int] = ()) -> None:
        """Let others reuse what the cache holds.

        Args:
            tokens: the ids of all positions of the cache, or the first of them that are known.
            positions: where to copy the sliding windows, so that others can go on from there; at
                most MAX_TRIM before the cache's end, or within its last append.
        """
        end = min(len(tokens), self.cache.offset)
        for branch in self._written:
            branch.tokens += tokens[branch.end : min(branch.start + branch.segment.length, end)]
        for position in sorted(set(positions)):
            branch = next((b for b in self._written if b.start < position <= b.end), None)
            if branch is not None and position not in branch.places:
                self._tree.add_place(branch, self.cache.windows(position))

    def release(self, tokens: Sequence[int] | None = None) -> None:
        """End the lease.

        Args:
            tokens: the ids of the cache's positions that are worth to be reused, perhaps a few
                less than it holds; None: what was not committed is lost.
        """
        if tokens is not None:
            self.commit(tokens, [min(len(tokens), self.cache.offset)])
        for branch in self._written:
            branch.writer = None
        for branch, _ in self._shared:
            branch.readers -= 1
        for branch in [*reversed(self._written), *(b for b, _ in reversed(self._shared))]:
            self._tree.prune(branch)

    def discard(self) -> None:
        """End the lease, and forget what it wrote: a step has failed, and who knows what is there.

        What others share stays: it was whole when they began to.
        """
        self._written[-1].places.clear()
        self.release()

    def growth(self, n: int) -> int:
        """Bytes that appending n positions to the cache would add."""
        return self._written[-1].segment.growth(n) * self._tree.position_bytes

    def reserve(self, positions: int) -> None:
        """When the cache grows next, make room for so many positions in all."""
        branch = self._written[-1]
        branch.segment.reserve(positions - branch.start)

    def share(self, branch: _Branch) -> None:
        """Others are going to read this branch: if it still grows, go on in one that follows it."""
        if branch is not self._written[-1]:
            return
        mx.eval(self.cache.arrays)
        following = _Branch(self.cache.offset, self._tree.new_segment(), branch, writer=self)
        branch.children.append(following)
        self._written.append(following)
        self.cache.follow_with(following.segment)


class PrefixCache:
    """The tree, and the budget for all it holds, that of running sequences included.

    Args:
        config: the model's.
        budget: bytes.
        dtype: of keys and values.
    """

    def __init__(self, config: ModelConfig, budget: int, dtype: mx.Dtype = mx.bfloat16) -> None:
        self.budget = budget
        self.position_bytes = config.num_hidden_layers // 2 * 2 * config.key_value_size * dtype.size
        self.stats = PrefixStats()
        self._config = config
        self._roots: list[_Branch] = []
        self._clock = 0

    def lease(self, prompt: Sequence[int], capacity: int = 0) -> Lease:
        """Begin a sequence: a cache that holds the longest prefix that can be reused.

        At least one token of the prompt is left to compute: its logits are wanted.

        Args:
            prompt: its ids.
            capacity: positions to make room for at once.
        """
        branch, position = self._find(prompt, len(prompt) - 1)
        self._clock += 1
        self.stats.leases += 1
        self.stats.prompt_tokens += len(prompt)
        self.stats.reused_tokens += position
        lease = self._go_on(branch, position) if branch else self._begin()
        lease.reused = position
        lease.reserve(capacity)
        return lease

    def reusable(self, prompt: Sequence[int]) -> int:
        """How many tokens a lease would reuse now."""
        return self._find(prompt, len(prompt) - 1)[1]

    def make_room(self, nbytes: int = 0) -> bool:
        """Evict what no sequence uses until so many bytes are free; whether they are."""
        while self.nbytes + nbytes > self.budget:
            if not self._evict():
                return False
        return True

    def clear(self) -> None:
        """Forget all that no sequence uses."""
        while self._evict():
            pass

    @property
    def nbytes(self) -> int:
        """Memory of all segments and windows."""
        return sum(
            branch.segment.capacity * self.position_bytes
            + sum(place.windows.nbytes for place in branch.places.values())
            for branch in self._branches()
        )

    @property
    def num_places(self) -> int:
        """From how many positions a sequence can go on."""
        return sum(len(branch.places) for branch in self._branches())

    def new_segment(self) -> Segment:
        """An empty one for this model."""
        return Segment(self._config.num_hidden_layers // 2)

    def add_place(self, branch: _Branch, windows: Windows) -> None:
        """Sequences can go on from here."""
        mx.async_eval(windows.arrays)
        branch.places[windows.position] = _Place(windows, self._clock)

    def prune(self, branch: _Branch | None) -> None:
        """Drop a branch, or its end, if nobody uses it and nothing can go on from it."""
        while branch is not None and branch.is_idle:
            if branch.places or branch.children:
                self._cut(branch)
                return
            siblings = self._roots if branch.parent is None else branch.parent.children
            if branch in siblings:
                siblings.remove(branch)
            branch = branch.parent

    def _cut(self, branch: _Branch) -> None:
        length = branch.needed_end - branch.start
        del branch.tokens[length:]
        if branch.segment.length - length >= _WORTH_A_COPY:
            branch.segment.shrink(length)
        else:
            branch.segment.truncate(length)

    def _branches(self) -> Iterator[_Branch]:
        stack = list(self._roots)
        while stack:
            branch = stack.pop()
            yield branch
            stack += branch.children

    def _find(self, prompt: Sequence[int], limit: int) -> tuple[_Branch | None, int]:
        """The furthest place on the prompt's path, at most at position `limit`."""
        found, best = None, 0
        stack = list(self._roots)
        while stack:
            branch = stack.pop()
            matched = branch.start + common_prefix(branch.tokens, prompt[branch.start : limit])
            here = max((p for p in branch.places if p <= matched), default=0)
            if here > best:
                found, best = branch, here
            stack += [child for child in branch.children if child.start <= matched]
        return found, best

    def _begin(self) -> Lease:
        branch = _Branch(0, self.new_segment())
        self._roots.append(branch)
        lease = Lease(self, branch, [])
        lease.cache = Cache(self._config, branch.segment)
        return lease

    def _go_on(self, branch: _Branch, position: int) -> Lease:
        place = branch.places[position]
        place.used = self._clock
        if branch.writer is not None:
            branch.writer.share(branch)
        path = _path(branch, position)
        ended_here = position == branch.end == branch.start + branch.segment.length
        if branch.is_idle and ended_here:
            path.pop()
        else:
            branch = self._follow(branch, position)
        if len(path) > _MOST_SHARED:
            branch, path = self._joined(path, place.windows), []
        lease = Lease(self, branch, path)
        shared = [(part.segment, length) for part, length in path]
        lease.cache = Cache(self._config, branch.segment, shared, place.windows)
        return lease

    def _follow(self, parent: _Branch, position: int) -> _Branch:
        branch = _Branch(position, self.new_segment(), parent)
        parent.children.append(branch)
        return branch

    def _joined(self, path: list[tuple[_Branch, int]], windows: Windows) -> _Branch:
        """A branch of its own with a copy of what lies on the path."""
        segment = self.new_segment()
        segment.append_copies([(branch.segment, length) for branch, length in path])
        tokens = [token for branch, length in path for token in branch.tokens[:length]]
        branch = _Branch(0, segment, None, tokens)
        self._roots.append(branch)
        self.add_place(branch, windows)
        return branch

    def _evict(self) -> bool:
        """Forget the place that was used longest ago, and what only it needed."""
        places = [(b.places[at].used, at, b) for b in self._branches() for at in b.places]
        if not places:
            return False
        _, position, branch = min(places, key=lambda place: place[:2])
        del branch.places[position]
        self.stats.evictions += 1
        self.prune(branch)
        return True


def _path(branch: _Branch, position: int) -> list[tuple[_Branch, int]]:
    """The branches from the root to a position, and how many tokens of each lie on the way."""
    path: list[tuple[_Branch, int]] = []
    node: _Branch | None = branch
    while node is not None:
        if position > node.start:
            path.append((node, position - node.start))
        position, node = node.start, node.parent
    return path[::-1]
