"""Which model in which variant fits a machine, how fast it may be, and which to take.

A variant is what can be chosen for a published model: the format of the dense matrices, where the
embedding table stays, and the width of keys and values. Each is planned as `memory` plans what is
about to be loaded, on this machine or on a Mac that is only described. The speed is an estimate: no
more than what the chip's bandwidth allows, and the share of it that published runs reach.

It does not know what is installed, and loads nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import mlx.core as mx

from gptoss_mlx.ceiling import Ceiling, device_ceiling, mac_ceiling
from gptoss_mlx.chips import Chip, find_chips
from gptoss_mlx.config import ModelConfig
from gptoss_mlx.convert.conversion import Dense, target_tensors
from gptoss_mlx.convert.names import source_tensors
from gptoss_mlx.convert.published import GPT_OSS_20B, GPT_OSS_120B
from gptoss_mlx.errors import MemoryPlanError, UsageError
from gptoss_mlx.memory import (
    COMFORTABLE_CONTEXT,
    MINIMUM_CONTEXT,
    EmbeddingPlace,
    Plan,
    Sizes,
    Use,
    make_plan,
    sizes_of,
)
from gptoss_mlx.segment import KVBits, position_bytes

__all__ = [
    "MODELS",
    "SHARES",
    "VARIANTS",
    "Fit",
    "Machine",
    "ModelName",
    "Recommendation",
    "Row",
    "Speed",
    "Variant",
    "Wish",
    "a_mac",
    "check_conversion",
    "check_weights",
    "decode_bytes",
    "fit",
    "options_for",
    "recommend",
    "speed",
    "this_machine",
]

ModelName = Literal["20b", "120b"]
MODELS: dict[ModelName, ModelConfig] = {"20b": GPT_OSS_20B, "120b": GPT_OSS_120B}
# Published decode speeds as a share of what the bandwidth allows: mlx-lm on an M3 Ultra, MLX on an
# M2 Max; llama.cpp on an M2 Ultra (43%) lies between.
SHARES = (0.25, 0.55)
_AMPLE = Ceiling(1 << 60, "")
_COSTS: dict[Dense, int] = {"q8": 0, "q4": 4, "bf16": 8}  # bf16 is slower, and hardly better
_COST_ON_DISK = 1  # a row is read from disk for each token
_COST_OF_8_BITS = 2


@dataclass(frozen=True)
class Machine:
    """What a model is to run on. `chips`: what it may have, for speeds; none if not known."""

    name: str
    ceiling: Ceiling
    chips: tuple[Chip, ...] = ()
    on_gpu: bool = True
    is_here: bool = False

    @property
    def itemsize(self) -> int:
        """Bytes of a number in the compute dtype: bfloat16 on a GPU, else float32."""
        return 2 if self.on_gpu else 4

    @property
    def raised(self) -> Machine | None:
        """The same with Metal's limit raised as far as is safe; None where it cannot be."""
        limit = self.ceiling.safe_wired_limit
        if not limit:
            return None
        source = f"Metal's limit raised to {limit >> 20} MB"
        return replace(self, ceiling=replace(self.ceiling, nbytes=limit, source=source))


@dataclass(frozen=True)
class Variant:
    """What can be chosen when a model is converted (`dense`) and when it is used (the rest)."""

    dense: Dense
    embedding: EmbeddingPlace = "memory"
    kv_bits: KVBits = 16

    @property
    def label(self) -> str:
        """For people."""
        disk = ", embedding on disk" * (self.embedding == "disk")
        return self.dense + disk + ", KV in 8 bits" * (self.kv_bits == 8)

    @property
    def options(self) -> tuple[str, ...]:
        """What `chat` and `serve` must be told; the embedding's place they find themselves."""
        return ("--kv-bits", "8") if self.kv_bits == 8 else ()

    @property
    def cost(self) -> int:
        """What it gives up, to be compared."""
        on_disk, narrow = self.embedding == "disk", self.kv_bits == 8
        return _COSTS[self.dense] + _COST_ON_DISK * on_disk + _COST_OF_8_BITS * narrow


VARIANTS = tuple(
    Variant(dense, embedding, kv_bits)
    for dense in get_args(Dense)
    for embedding in get_args(EmbeddingPlace)
    for kv_bits in get_args(KVBits)
)


@dataclass(frozen=True)
class Wish:
    """What for: tokens of a sequence (None: as many as fit), and how many sequences at once."""

    context: int | None = None
    parallel: int = 1

    @property
    def basis(self) -> int:
        """The context for which needs and speeds are told."""
        return self.context or MINIMUM_CONTEXT


@dataclass(frozen=True)
class Speed:
    """Tokens a second of one sequence, as expected: an estimate, not measured."""

    low: float
    high: float


@dataclass(frozen=True)
class Row:
    """One variant on one machine.

    plan: what `chat` and `serve` would decide. needed: bytes for the wish's context. raised: the
    plan with Metal's limit raised, if it can be. read_bytes: for a token after that context. speed:
    of the slowest to the fastest chip.
    """

    variant: Variant
    plan: Plan
    needed: int
    raised: Plan | None
    read_bytes: int
    speed: Speed | None

    @property
    def fits(self) -> bool:
        """Whether it would be loaded, if perhaps with a smaller context."""
        return self.plan.verdict != "refused"


@dataclass(frozen=True)
class Fit:
    """Every variant of one model on one machine."""

    model: ModelName
    machine: Machine
    wish: Wish
    rows: tuple[Row, ...]

    @property
    def best(self) -> Row | None:
        """The variant to take: the one that gives up least for enough context, if there is one."""
        return _best(self.rows, self.target)

    @property
    def target(self) -> int:
        """The context that is enough."""
        return self.wish.context or COMFORTABLE_CONTEXT


@dataclass(frozen=True)
class Recommendation:
    """What to take, or why nothing.

    model, variant: None if nothing fits. context: tokens that fit, for each sequence. reason: one
    line for people. download_bytes: of OpenAI's files; disk_bytes: of the conversion; read_bytes:
    from memory, for a token.
    """

    model: ModelName | None
    variant: Variant | None
    context: int
    reason: str
    speed: Speed | None = None
    download_bytes: int = 0
    disk_bytes: int = 0
    read_bytes: int = 0


def this_machine() -> Machine:
    """Where this runs.

    Raises:
        UsageError: GPTOSS_MLX_MEMORY is no size.
    """
    ceiling = device_ceiling()
    on_gpu = mx.default_device() != mx.Device(mx.cpu)
    if not (on_gpu and mx.metal.is_available()):
        return Machine("this machine", ceiling, on_gpu=on_gpu, is_here=True)
    name, gigabytes = str(mx.device_info()["device_name"]), round(ceiling.physical / 2**30)
    chips = find_chips(name, gigabytes) or find_chips(name)
    return Machine(f"this Mac ({name}, {gigabytes} GB)", ceiling, chips, is_here=True)


def a_mac(gigabytes: int, chip: str | None = None) -> Machine:
    """A Mac as it is sold, with the limit that Metal has there by default.

    Raises:
        UsageError: the chip is unknown, or not sold with so much memory.
    """
    ceiling = mac_ceiling(gigabytes)
    chips = find_chips(chip, gigabytes)
    if chip is None:
        return Machine(f"a Mac with {gigabytes} GB", ceiling, chips)
    if not chips:
        sizes = sorted(size for known in find_chips(chip) for size in known.memory)
        if not sizes:
            raise UsageError(f"no chip {chip!r} is known: name one such as 'M4 Pro'")
        raise UsageError(f"an {chip} comes with {', '.join(map(str, sizes))} GB, not {gigabytes}")
    return Machine(f"an {chips[0].name} with {gigabytes} GB", ceiling, chips)


def fit(model: ModelName, machine: Machine, wish: Wish | None = None) -> Fit:
    """Plan every variant of a model.

    Raises:
        UsageError: a context that the model does not know.
    """
    wish, config = wish or Wish(), MODELS[model]
    rows = tuple(_row(config, machine, wish, variant) for variant in VARIANTS)
    return Fit(model, machine, wish, rows)


def recommend(
    models: Sequence[ModelName] = ("20b", "120b"),
    machine: Machine | None = None,
    wish: Wish | None = None,
) -> Recommendation:
    """The largest of these models with enough context, else the one with any.

    Args:
        models: those that may be taken.
        machine: by default this one.
        wish: by default one sequence with a comfortable context.

    Raises:
        UsageError: as `fit` and `this_machine`.
    """
    machine = machine or this_machine()
    largest_first = sorted(models, key=lambda model: MODELS[model].num_experts, reverse=True)
    fits = [fit(model, machine, wish) for model in largest_first]
    best = [(found, found.best) for found in fits if found.best]
    enough = [pair for pair in best if pair[1].plan.context >= pair[0].target]
    for found, row in (enough or best[::-1])[:1]:
        return _recommendation(found, row)
    least = min(fits[-1].rows, key=lambda row: row.needed)
    return Recommendation(None, None, 0, f"{fits[-1].model}: {least.plan.summary}")


def check_conversion(config: ModelConfig, dense: Dense, machine: Machine | None = None) -> None:
    """See to it that a conversion could be used here, with the settings that need least memory.

    Raises:
        MemoryPlanError: it could not.
        UsageError: GPTOSS_MLX_MEMORY is no size.
    """
    machine = machine or this_machine()
    use = Use(embedding="disk", kv_bits=8, on_gpu=machine.on_gpu)
    sizes = sizes_of(config, dense, machine.itemsize)
    plan = make_plan(config, sizes, machine.ceiling, use)
    if plan.verdict == "refused":
        raise MemoryPlanError(f"converted to {dense}, {plan.summary}")


def check_weights(nbytes: int, machine: Machine | None = None) -> None:
    """See to it that a checkpoint of which only the size is known may be used here.

    What is certain: its weights must fit, but for an embedding table, which may stay on disk.

    Raises:
        MemoryPlanError: they cannot.
        UsageError: GPTOSS_MLX_MEMORY is no size.
    """
    ceiling = (machine or this_machine()).ceiling
    least = nbytes - sizes_of(GPT_OSS_20B, "bf16").embedding
    if least > ceiling.nbytes:
        raise MemoryPlanError(
            f"the weights alone take {least / 2**30:.2f} GiB, and there are "
            f"{ceiling.nbytes / 2**30:.2f} GiB ({ceiling.source}): `gptoss-mlx fit` shows what fits"
        )


def options_for(
    config: ModelConfig, dense: Dense, machine: Machine | None = None
) -> tuple[str, ...]:
    """What `chat` and `serve` are best told about a conversion; nothing where nothing fits.

    Raises:
        UsageError: GPTOSS_MLX_MEMORY is no size.
    """
    machine, wish = machine or this_machine(), Wish()
    variants = [variant for variant in VARIANTS if variant.dense == dense]
    best = _best(
        [_row(config, machine, wish, variant) for variant in variants], COMFORTABLE_CONTEXT
    )
    return best.variant.options if best else ()


def decode_bytes(config: ModelConfig, sizes: Sizes, context: int, kv_bits: KVBits) -> int:
    """What is read from memory for one token: weights, chosen experts, keys and values."""
    experts = sizes.experts * config.experts_per_token // config.num_experts
    return sizes.attention + sizes.lm_head + experts + _kv_bytes(config, sizes, context, kv_bits)


def speed(nbytes: int, chips: Sequence[Chip]) -> Speed | None:
    """Tokens a second if each reads so many bytes; None if no chip is known."""
    if not chips:
        return None
    rooflines = [chip.bandwidth * 1e9 / nbytes for chip in chips]
    return Speed(min(rooflines) * SHARES[0], max(rooflines) * SHARES[1])


def _kv_bytes(config: ModelConfig, sizes: Sizes, context: int, kv_bits: KVBits) -> int:
    dtype = mx.bfloat16 if sizes.itemsize == 2 else mx.float32
    windows = (config.num_hidden_layers + 1) // 2 * min(context, config.sliding_window)
    full = context * position_bytes(config, dtype, kv_bits)
    return full + windows * 2 * config.key_value_size * sizes.itemsize


def _row(config: ModelConfig, machine: Machine, wish: Wish, variant: Variant) -> Row:
    sizes = sizes_of(config, variant.dense, machine.itemsize)
    use = Use(
        wish.context,
        wish.parallel,
        embedding=variant.embedding,
        kv_bits=variant.kv_bits,
        on_gpu=machine.on_gpu,
    )
    raised = machine.raised
    basis = min(wish.basis, config.max_context_length)  # of a smaller model than the published ones
    read = decode_bytes(config, sizes, basis, variant.kv_bits)
    return Row(
        variant,
        make_plan(config, sizes, machine.ceiling, use),
        make_plan(config, sizes, _AMPLE, replace(use, context=basis)).total,
        make_plan(config, sizes, raised.ceiling, use) if raised else None,
        read,
        speed(read, machine.chips),
    )


def _best(rows: Sequence[Row], target: int) -> Row | None:
    """Of those that fit, the one that gives up least for so much context, or has the most."""
    fitting = [row for row in rows if row.fits]
    enough = [row for row in fitting if row.plan.context >= target]
    if enough:
        return min(enough, key=lambda row: row.variant.cost)
    return max(fitting, key=lambda row: (row.plan.context, -row.variant.cost), default=None)


def _recommendation(found: Fit, row: Row) -> Recommendation:
    config, ceiling = MODELS[found.model], row.plan.ceiling
    sources = source_tensors(config, "openai")
    targets = target_tensors(sources, row.variant.dense)
    label = f"{found.model}, {row.variant.label}"
    memory = f"{ceiling.nbytes / 2**30:.2f} GiB ({ceiling.source})"
    return Recommendation(
        found.model,
        row.variant,
        row.plan.context,
        f"{label}: {row.plan.context:,} tokens of context fit in {memory}",
        row.speed,
        sum(tensor.spec.nbytes for tensor in sources.values()),
        sum(spec.nbytes for spec in targets.values()),
        row.read_bytes,
    )
