"""What fits on this machine, from sizes alone, before anything is loaded.

A plan adds up the weights, the keys and values of the context, what a prompt needs on its way
through the layers, and the process; and holds the sum against the machine's ceiling. If it does
not fit, the plan names what would help, and only what has been recomputed to do so.

It knows neither files nor the engine, which must keep to `Plan.context` and `Plan.kv_budget`.
Sizes are in bytes, contexts in tokens.
"""

from __future__ import annotations

import bisect
import functools
import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

from gptoss_mlx.ceiling import Ceiling
from gptoss_mlx.config import ModelConfig
from gptoss_mlx.convert.conversion import GROUP_SIZE, Dense, target_tensors
from gptoss_mlx.convert.names import DTYPE_BYTES, TensorSpec, source_tensors
from gptoss_mlx.errors import MemoryPlanError, UsageError

__all__ = [
    "COMFORTABLE_CONTEXT",
    "MINIMUM_CONTEXT",
    "EmbeddingChoice",
    "EmbeddingPlace",
    "Line",
    "Plan",
    "Sizes",
    "Use",
    "make_plan",
    "sizes_of",
    "tensor_sizes",
]

EmbeddingPlace = Literal["memory", "disk"]
EmbeddingChoice = Literal["auto", EmbeddingPlace]
Verdict = Literal["fits", "smaller context", "refused"]

MINIMUM_CONTEXT = 4096  # below, a plan is refused (unless less was asked for)
COMFORTABLE_CONTEXT = 16_384  # a conversation with documents, or with tools
_STEP = 1024  # a smaller context is a multiple of it
_GROWTH = 256  # positions that the buffers of a cache grow by
_SCALE_BYTES = 4  # of a scale, and of a bias, of keys and values in 8 bits
_WINDOW_ROOM = _GROWTH + 16  # positions that sliding layers keep more: to grow, to take back
_SNAPSHOTS = 8  # windows of the sliding layers kept for reuse, for each sequence
# Arrays of (token, expert) pairs by width that a chunk holds at once: about a layer's with nothing
# given back, since MLX prepares work ahead. Peaks of 20 to 28 were seen with plain.py's operations
# on MLX's CPU backend, in models of 2 and 8 layers; 8 to 10 where MLX could not run ahead.
_PAIR_ARRAYS = 28
_GROWING_LAYERS = 2  # full layers whose old and new buffers are there at once
_LOGITS_COPIES = 6  # float32 arrays of the vocabulary that drawing a token takes
_CPU_QUERIES = 128  # whose scores kernels/cpu.py holds at a time, in three arrays
_DRIVER = 64 << 20  # what Metal or CUDA keep for themselves: an estimate
_PROCESS = 384 << 20  # Python and its libraries, tokenizer included, and what numpy multiplies in


@dataclass(frozen=True)
class Sizes:
    """What a model takes in memory, by role. Routers and norms count as attention.

    `itemsize`: bytes of a number in the compute dtype, which small tensors are cast to.
    """

    attention: int
    experts: int
    lm_head: int
    embedding: int
    itemsize: int = 2

    @property
    def total(self) -> int:
        """Everything."""
        return self.attention + self.experts + self.lm_head + self.embedding


@dataclass(frozen=True)
class Use:
    """What the model is to be used for.

    context: tokens of a sequence; None: as many as the model knows. parallel: sequences at once,
    each of them that long. cache_bytes: kept for prefixes beyond those sequences. embedding: where
    the table stays; auto: on disk only if that gives more context, and in memory there is too
    little (see COMFORTABLE_CONTEXT). kv_bits: 16, or 8 in groups of 64 with a scale and a bias.
    prefill_chunk: tokens of a prompt that go through the layers together, as the engine is told.
    """

    context: int | None = None
    parallel: int = 1
    cache_bytes: int = 0
    embedding: EmbeddingChoice = "auto"
    kv_bits: Literal[16, 8] = 16
    prefill_chunk: int = 512
    on_gpu: bool = True


@dataclass(frozen=True)
class Line:
    """One entry of a plan."""

    name: str
    nbytes: int
    note: str = ""


@dataclass(frozen=True)
class Plan:
    """What a use of a model takes, and whether it fits.

    lines: for `context` tokens, or if it is refused for the fewest there could be. wanted: the
    context that was asked for. context: the largest that fits up to that, 0 if refused. kv_budget:
    what keys and values, living and kept for reuse, may take together. embedding: where it is to
    stay.
    """

    lines: tuple[Line, ...]
    ceiling: Ceiling
    verdict: Verdict
    wanted: int
    context: int
    kv_budget: int
    embedding: EmbeddingPlace
    remedies: tuple[str, ...]

    @property
    def total(self) -> int:
        """All lines."""
        return sum(line.nbytes for line in self.lines)

    @property
    def summary(self) -> str:
        """The verdict in one line, with the best remedy."""
        have = f"{_gib(self.ceiling.nbytes)} ({self.ceiling.source})"
        if self.verdict == "fits":
            return f"a context of {self.context:,} tokens takes {_gib(self.total)} of {have}"
        if self.verdict == "refused":
            return f"the model needs {_gib(self.total)}, and there are {have}: {self.remedies[0]}"
        more = "".join(f"; for more, {remedy}" for remedy in self.remedies[1:2])
        return f"{self.context:,} of {self.wanted:,} tokens of context fit in {have}{more}"

    def check(self) -> None:
        """Go on only with a plan that fits, if perhaps with a smaller context.

        Raises:
            MemoryPlanError: it is refused.
        """
        if self.verdict == "refused":
            raise MemoryPlanError(self.summary)

    def describe(self) -> list[str]:
        """A table for people, one text a row."""
        rows = [*self.lines, Line("total", self.total)]
        rows.append(Line("ceiling", self.ceiling.nbytes, self.ceiling.source))
        width = max(len(row.name) for row in rows)
        table = [f"{row.name:{width}}  {_gib(row.nbytes):>10}  {row.note}".rstrip() for row in rows]
        helps = [f"  {remedy}" for remedy in self.remedies]
        return [*table, f"{self.verdict}: {self.summary}", *helps]


def make_plan(config: ModelConfig, sizes: Sizes, ceiling: Ceiling, use: Use | None = None) -> Plan:
    """Add up what a use takes, and find the largest context that fits.

    Raises:
        UsageError: a context that the model does not know, or no sequence at all.
    """
    case = _Case(config, sizes, ceiling, use or Use())
    longest = config.max_context_length
    if not 0 < case.wanted <= longest:
        raise UsageError(f"the context must lie in 1..{longest:,} tokens, the model's own")
    if min(case.use.parallel, case.use.prefill_chunk) < 1 or case.use.cache_bytes < 0:
        raise UsageError("memory is planned for at least one sequence, and for no negative cache")
    case, place = _placed(case)
    context = case.largest_context()
    lines = tuple(case.lines(context or min(case.wanted, MINIMUM_CONTEXT)))
    smaller: Verdict = "smaller context" if context else "refused"
    verdict = "fits" if context == case.wanted else smaller
    fixed = sum(line.nbytes for line in lines if line.name not in _KV_LINES)
    budget = ceiling.nbytes - fixed if context else 0
    remedies = tuple(_remedies(case, context))
    return Plan(lines, ceiling, verdict, case.wanted, context, budget, place, remedies)


_KV_LINES = ("KV cache", "prefix cache")


def _placed(case: _Case) -> tuple[_Case, EmbeddingPlace]:
    """The case with its embedding where it was asked for, or is best."""
    if case.use.embedding != "auto":
        return case, case.use.embedding
    in_memory, on_disk = _used(embedding="memory")(case), _used(embedding="disk")(case)
    enough = case.use.context or min(case.wanted, COMFORTABLE_CONTEXT)
    context = in_memory.largest_context()
    if context and (context >= enough or context == on_disk.largest_context()):
        return in_memory, "memory"
    return on_disk, "disk"


@dataclass(frozen=True)
class _Case:
    """A model, a machine and a use, which remedies replace one part of."""

    config: ModelConfig
    sizes: Sizes
    ceiling: Ceiling
    use: Use

    @property
    def wanted(self) -> int:
        if self.use.context is None:
            return self.config.max_context_length
        return self.use.context

    def largest_context(self) -> int:
        """The context asked for, or the largest that fits, or 0."""
        limit = self.ceiling.nbytes
        if self.total(self.wanted) <= limit:
            return self.wanted
        smaller = range(MINIMUM_CONTEXT, self.wanted, _STEP)
        fitting = bisect.bisect_right(smaller, limit, key=self.total)
        return smaller[fitting - 1] if fitting else 0

    def total(self, context: int) -> int:
        return sum(line.nbytes for line in self.lines(context))

    def lines(self, context: int) -> Iterator[Line]:
        use, sizes = self.use, self.sizes
        on_disk = use.embedding == "disk"
        note = f"experts {_gib(sizes.experts)}" + ", embedding on disk" * on_disk
        yield Line("weights", sizes.total - sizes.embedding * on_disk, note)
        chunk = min(use.prefill_chunk, context)
        kept = math.ceil(context / _GROWTH) * _GROWTH
        kv = use.parallel * (kept * self._token_bytes() + self._window_bytes(_WINDOW_ROOM + chunk))
        yield Line("KV cache", kv, f"{context:,} tokens x {use.parallel}")
        snapshots = _SNAPSHOTS * use.parallel
        prefixes = use.cache_bytes + snapshots * self._window_bytes(0)
        yield Line("prefix cache", prefixes, f"{snapshots} windows")
        growing = min(_GROWING_LAYERS, self._full_layers)
        copies = kept * self._token_bytes() // max(1, self._full_layers) * growing
        yield Line("KV copies", copies, f"while {growing} layers grow")
        yield Line("activations", self._activations(chunk, context), f"{chunk} tokens at once")
        yield Line("overhead", _DRIVER if use.on_gpu else _PROCESS)

    @property
    def _full_layers(self) -> int:
        config = self.config
        return sum(not config.is_sliding(n) for n in range(config.num_hidden_layers))

    def _token_bytes(self) -> int:
        """Keys and values of a token in all full layers."""
        itemsize = self.sizes.itemsize
        number = itemsize if self.use.kv_bits == 16 else 1 + 2 * _SCALE_BYTES / GROUP_SIZE
        return round(2 * self.config.key_value_size * number * self._full_layers)

    def _window_bytes(self, room: int) -> int:
        """Keys and values of the sliding layers, which keep a window."""
        config = self.config
        layers = config.num_hidden_layers - self._full_layers
        positions = config.sliding_window - 1 + room
        return 2 * config.key_value_size * positions * layers * self.sizes.itemsize

    def _activations(self, chunk: int, context: int) -> int:
        config, itemsize = self.config, self.sizes.itemsize
        pairs = max(chunk, self.use.parallel) * config.experts_per_token
        width = max(config.hidden_size, config.intermediate_size)
        scores = 0 if self.use.on_gpu else _CPU_QUERIES * config.num_attention_heads * context
        logits = _LOGITS_COPIES * self.use.parallel * config.vocab_size
        numbers = 4 * (3 * scores + logits) + self._cast_head_bytes()
        return _PAIR_ARRAYS * pairs * width * itemsize + numbers

    def _cast_head_bytes(self) -> int:
        """lm_head in the compute dtype, which each token makes where that is wider than bf16."""
        size = self.config.vocab_size * self.config.hidden_size
        is_dense = self.sizes.lm_head == 2 * size
        return size * self.sizes.itemsize if is_dense and self.sizes.itemsize > 2 else 0


_COST_OF_DENSE: dict[Dense, int] = {"q8": 2, "q4": 5}


class _Change(NamedTuple):
    """Something that can be done, what it costs beside others, and what it makes of a case."""

    text: str
    cost: int
    apply: Callable[[_Case], _Case]


def _remedies(case: _Case, context: int) -> Iterator[str]:
    """What makes all of the context fit, or any if it is refused: the cheapest first, no more."""
    if context == case.wanted:
        return
    if context:
        yield f"pass --context {context}"
    found: list[set[str]] = []
    for chosen in _combinations(list(_changes(case))):
        texts = {change.text for change in chosen}
        if any(enough <= texts for enough in found):
            continue
        changed = functools.reduce(lambda now, change: change.apply(now), chosen, case)
        if changed.largest_context() >= (case.wanted if context else 1):
            found.append(texts)
            yield " and ".join(change.text for change in chosen)
    if not context and not found:
        yield "no setting makes it fit: take a smaller model, or a machine with more memory"


def _combinations(changes: list[_Change]) -> list[tuple[_Change, ...]]:
    counts = range(1, len(changes) + 1)
    chosen = itertools.chain.from_iterable(itertools.combinations(changes, n) for n in counts)
    return sorted(chosen, key=lambda together: sum(change.cost for change in together))


def _changes(case: _Case) -> Iterator[_Change]:
    if case.use.embedding == "memory":
        text = "leave the embedding table on disk (--embedding disk)"
        yield _Change(text, 1, _used(embedding="disk"))
    if limit := case.ceiling.safe_wired_limit:
        text = f"raise Metal's limit (sudo sysctl iogpu.wired_limit_mb={limit >> 20})"
        raised = replace(case.ceiling, nbytes=limit)
        yield _Change(text, 1, functools.partial(replace, ceiling=raised))
    if case.use.parallel > 1:
        yield _Change("serve one sequence at a time (--parallel 1)", 2, _used(parallel=1))
    for dense, cost in _COST_OF_DENSE.items():
        sizes = _converted(case, dense)
        if sizes.total < case.sizes.total:
            text = f"convert it smaller (gptoss-mlx convert SRC DST --dense {dense})"
            yield _Change(text, cost, functools.partial(replace, sizes=sizes))


def _used(**changes: Any) -> Callable[[_Case], _Case]:
    return lambda case: replace(case, use=replace(case.use, **changes))


def _converted(case: _Case, dense: Dense) -> Sizes:
    """What another conversion takes; as much as this one if convert would refuse it."""
    if case.config.hidden_size % GROUP_SIZE or case.config.query_size % GROUP_SIZE:
        return case.sizes
    return sizes_of(case.config, dense, case.sizes.itemsize)


@functools.lru_cache(maxsize=64)  # remedies ask for the same ones again and again
def sizes_of(config: ModelConfig, dense: Dense, itemsize: int = 2) -> Sizes:
    """What a model takes that `convert` writes with this `--dense`; there need be none."""
    return tensor_sizes(target_tensors(source_tensors(config, "openai"), dense), itemsize)


def tensor_sizes(tensors: Mapping[str, TensorSpec], itemsize: int = 2) -> Sizes:
    """What a converted checkpoint takes, from its tensors' names, dtypes and shapes."""
    roles: Counter[str] = Counter()
    for name, spec in tensors.items():
        roles[_role(name)] += _resident_bytes(name, spec, itemsize)
    return Sizes(
        roles["attention"], roles["experts"], roles["lm_head"], roles["embedding"], itemsize
    )


def _role(name: str) -> str:
    if name.startswith("model.embed_tokens."):
        return "embedding"
    if name.startswith("lm_head."):
        return "lm_head"
    return "experts" if ".mlp.experts." in name else "attention"


def _resident_bytes(name: str, spec: TensorSpec, itemsize: int) -> int:
    """As weights.py keeps it: integers and dense matrices as stored, the rest cast."""
    stored = DTYPE_BYTES.get(spec.dtype, 2)
    is_matrix = name.endswith(".weight") and len(spec.shape) > 1
    keeps = is_matrix or spec.dtype[0] == "U"
    return math.prod(spec.shape) * (stored if keeps else itemsize)


def _gib(nbytes: int) -> str:
    return f"{nbytes / 2**30:.2f} GiB"
