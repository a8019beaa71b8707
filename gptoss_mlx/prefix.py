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

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import mlx.core as mx

from gptoss_mlx.branches import Branch, Contents, Held, Path, Place, Source, Tree, path_to
from gptoss_mlx.cache import Cache, Windows
from gptoss_mlx.config import ModelConfig
from gptoss_mlx.segment import KVBits, Segment, position_bytes

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


class Lease:
    """What one running sequence holds of the tree: its cache, and the branch it writes."""

    def __init__(self, owner: PrefixCache, branch: Branch, shared: Path, cache: Cache) -> None:
        self.reused = 0
        self.cache = cache
        self._owner = owner
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
                self._owner.add_place(branch, self.cache.windows(position))

    def release(self, tokens: Sequence[int] | None = None) -> None:
        """End the lease. What another branch has just as well is dropped.

        Args:
            tokens: the ids of the cache's positions that are worth to be reused, perhaps a few
                less than it holds; None: what was not committed is lost.
        """
        if tokens is not None:
            self.commit(tokens, [min(len(tokens), self.cache.offset)])
            self._owner.drop_twin(self._written[-1], tokens)
        for branch in self._written:
            branch.writer = None
        for branch, _ in self._shared:
            branch.readers -= 1
        for branch in [*reversed(self._written), *(b for b, _ in reversed(self._shared))]:
            self._owner.prune(branch)

    def discard(self) -> None:
        """End the lease, and forget what it wrote: a step has failed, and who knows what is there.

        What others share stays: it was whole when they began to.
        """
        self._written[-1].places.clear()
        self.release()

    def forget(self) -> None:
        """Drop what it wrote from the tree, with all that was built on it: it is wrong."""
        self._owner.remove(self._written[0])

    def growth(self, n: int) -> int:
        """Bytes that appending n positions to the cache would add."""
        return self._written[-1].segment.growth(n) * self._owner.position_bytes

    def reserve(self, positions: int) -> None:
        """When the cache grows next, make room for so many positions in all."""
        branch = self._written[-1]
        branch.segment.reserve(positions - branch.start)

    def share(self, branch: Branch) -> None:
        """Others are going to read this branch: if it still grows, go on in one that follows it."""
        if branch is not self._written[-1]:
            return
        mx.eval(self.cache.arrays)
        following = self._owner.new_branch(self.cache.offset, branch)
        following.writer = self
        self._written.append(following)
        self.cache.follow_with(following.segment)


class PrefixCache:
    """The tree, and the budget for all it holds, that of running sequences included.

    Args:
        config: the model's.
        budget: bytes.
        dtype: of keys and values.
        kv_bits: 8: those of full layers are kept in 8 bits.

    Raises:
        UsageError: kv_bits is neither 16 nor 8, or the model's heads cannot be kept in 8 bits.
    """

    def __init__(
        self,
        config: ModelConfig,
        budget: int,
        dtype: mx.Dtype = mx.bfloat16,
        kv_bits: KVBits = 16,
    ) -> None:
        self.budget = budget
        self.position_bytes = position_bytes(config, dtype, kv_bits)
        self.dtype = dtype
        self.stats = PrefixStats()
        self._config = config
        self._kv_bits: KVBits = kv_bits
        self._tree = Tree()
        self._clock = 0

    def lease(self, prompt: Sequence[int], capacity: int = 0) -> Lease:
        """Begin a sequence: a cache that holds the longest prefix that can be reused.

        At least one token of the prompt is left to compute: its logits are wanted.

        Args:
            prompt: its ids.
            capacity: positions to make room for at once.
        """
        branch, position = self._tree.find(prompt, len(prompt) - 1)
        while branch is not None and not self._load(path_to(branch, position)):
            branch, position = self._tree.find(prompt, len(prompt) - 1)
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
        return self._tree.find(prompt, len(prompt) - 1)[1]

    def make_room_for(self, tokens: Sequence[int]) -> bool:
        """Make room for what is not cached of these tokens, and one more; whether there is.

        What is cached of them counts as used now: it must not go to make room for the rest.
        """
        while True:
            branch, cached = self._tree.find(tokens, len(tokens) - 1)
            if branch is not None:
                self._clock += 1
                branch.places[cached].used = self._clock
            if not self.make_room(self.bytes_for(len(tokens) + 1 - cached)):
                return False
            if self.reusable(tokens) == cached:
                return True

    def bytes_for(self, positions: int) -> int:
        """Memory that so many positions take in a new segment."""
        return self.new_segment().growth(positions) * self.position_bytes

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

    def plant(
        self, tokens: Sequence[int], start: int, positions: Sequence[int], source: Source
    ) -> bool:
        """Add a branch that is kept elsewhere, to be loaded when a prompt can use it.

        Args:
            tokens: all ids up to its end.
            start: where its own begin; False is returned if the ids before it are not there.
            positions: its places.
            source: where it is.
        """
        parent = self._tree.holder(tokens, start)
        if start and parent is None:
            return False
        branch = self.new_branch(start, parent)
        branch.tokens, branch.source, branch.is_loaded = list(tokens[start:]), source, False
        branch.places = {position: Place(None, self._clock) for position in positions}
        return True

    def held(self) -> Iterator[Held]:
        """What is in memory and can be gone on from, parents before their children."""
        for branch in self._tree:
            windows = [place.windows for place in branch.places.values() if place.windows]
            if windows or (branch.is_loaded and branch.children):
                path = path_to(branch, branch.needed_end)
                tokens = [token for part, n in path for token in part.tokens[:n]]
                contents = Contents(branch.segment, windows)
                yield Held(tokens, branch.start, contents, branch.source)

    @property
    def nbytes(self) -> int:
        """Memory of all segments and windows."""
        return sum(
            branch.segment.capacity * self.position_bytes
            + sum(place.windows.nbytes for place in list(branch.places.values()) if place.windows)
            for branch in self._tree  # copies of lists: other threads may ask while it changes
        )

    @property
    def num_places(self) -> int:
        """From how many positions a sequence can go on."""
        return sum(len(branch.places) for branch in self._tree)

    def new_segment(self) -> Segment:
        """An empty one for this model."""
        return Segment(self._config.num_hidden_layers // 2, self._kv_bits)

    def new_branch(self, start: int, parent: Branch | None = None) -> Branch:
        """An empty one, in the tree."""
        return self._tree.add(Branch(start, self.new_segment(), parent))

    def remove(self, branch: Branch) -> None:
        """Take it out of the tree, with all that follows it."""
        self._tree.remove(branch)

    def add_place(self, branch: Branch, windows: Windows) -> None:
        """Sequences can go on from here."""
        mx.async_eval(windows.arrays)
        branch.places[windows.position] = Place(windows, self._clock)

    def prune(self, branch: Branch | None) -> None:
        """Drop a branch, or its end, if nobody uses it and nothing can go on from it."""
        while branch is not None and branch.is_idle:
            if branch.places or branch.children:
                self._cut(branch)
                return
            self._tree.remove(branch)
            branch = branch.parent

    def drop_twin(self, branch: Branch, tokens: Sequence[int]) -> None:
        """Forget the places of a branch on the path of these tokens if another has as far ones."""
        places, branch.places = branch.places, {}
        end = max(places, default=0)
        if branch.children or self._tree.find(tokens, end)[1] < end:
            branch.places = places

    def _cut(self, branch: Branch) -> None:
        if not branch.is_loaded:
            return
        length = branch.needed_end - branch.start
        del branch.tokens[length:]
        if branch.segment.length - length >= _WORTH_A_COPY:
            branch.segment.shrink(length)
        else:
            branch.segment.truncate(length)

    def _load(self, path: Path) -> bool:
        """Bring the branches of a path into memory; if one is damaged, it is dropped instead."""
        with _pinned(path):
            damaged = next((b for b, _ in path if not (b.is_loaded or self._fill(b))), None)
        if damaged is not None:
            self._tree.remove(damaged)
        return damaged is None

    def _has_room_for_copy(self, path: Path) -> bool:
        with _pinned(path):
            return self.make_room(self.bytes_for(sum(length for _, length in path)))

    def _fill(self, branch: Branch) -> bool:
        assert branch.source is not None
        self.make_room(branch.source.nbytes)
        contents = branch.source.load()
        if contents is None or contents.segment.length != len(branch.tokens):
            return False
        branch.segment, branch.is_loaded = contents.segment, True
        branch.places = {w.position: Place(w, self._clock) for w in contents.windows}
        return True

    def _begin(self) -> Lease:
        branch = self.new_branch(0)
        return Lease(self, branch, [], Cache(self._config, branch.segment))

    def _go_on(self, branch: Branch, position: int) -> Lease:
        place = branch.places[position]
        place.used = self._clock
        assert place.windows is not None
        if branch.writer is not None:
            branch.writer.share(branch)
        path = path_to(branch, position)
        ended_here = position == branch.end == branch.start + branch.segment.length
        can_append = branch.is_idle and ended_here
        if len(path) - can_append > _MOST_SHARED and self._has_room_for_copy(path):
            branch, path = self._joined(path, place.windows), []
        elif can_append:
            path.pop()
        else:
            branch = self.new_branch(position, branch)
        shared = [(part.segment, length) for part, length in path]
        cache = Cache(self._config, branch.segment, shared, place.windows)
        return Lease(self, branch, path, cache)

    def _joined(self, path: Path, windows: Windows) -> Branch:
        """A branch of its own with a copy of what lies on the path."""
        joined = self.new_branch(0)
        joined.segment.append_copies([(branch.segment, length) for branch, length in path])
        joined.tokens = [token for branch, length in path for token in branch.tokens[:length]]
        self.add_place(joined, windows)
        return joined

    def _evict(self) -> bool:
        """Forget the place that was used longest ago, and what only it needed."""
        loaded = [branch for branch in self._tree if branch.is_loaded]
        places = [(b.places[at].used, at, b) for b in loaded for at in b.places]
        if not places:
            return False
        _, position, branch = min(places, key=lambda place: place[:2])
        del branch.places[position]
        self.stats.evictions += 1
        self.prune(branch)
        return True


@contextmanager
def _pinned(path: Path) -> Generator[None]:
    """Its branches are not evicted meanwhile."""
    for branch, _ in path:
        branch.readers += 1
    try:
        yield
    finally:
        for branch, _ in path:
            branch.readers -= 1
