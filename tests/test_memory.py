"""Memory plans: sums against numbers computed by hand, verdicts, and remedies that help."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import mlx.core as mx
import pytest
from checkpoints import TINY
from helpers import write_converted

from gptoss_mlx.ceiling import Ceiling
from gptoss_mlx.config import ModelConfig
from gptoss_mlx.convert import Dense
from gptoss_mlx.convert.synthetic import GPT_OSS_20B, GPT_OSS_120B
from gptoss_mlx.errors import MemoryPlanError, UsageError
from gptoss_mlx.memory import (
    COMFORTABLE_CONTEXT,
    MINIMUM_CONTEXT,
    Plan,
    Use,
    make_plan,
    sizes_of,
    tensor_sizes,
)
from gptoss_mlx.model import load_model
from gptoss_mlx.segment import position_bytes
from gptoss_mlx.weights import read_checkpoint

MODELS = {"20b": GPT_OSS_20B, "120b": GPT_OSS_120B}
ALL_DENSE: tuple[Dense, ...] = ("bf16", "q8", "q4")
in_memory = partial(Use, embedding="memory")  # where the table stays, if nothing else is said
CEILINGS = (10.5, 12, 16, 27, 48, 58, 59, 60, 61, 62, 64, 107, 200)  # GiB


def _plan(
    gib: float,
    dense: Dense = "q8",
    use: Use | None = None,
    config: ModelConfig = GPT_OSS_20B,
    ram: int = 0,
) -> Plan:
    ceiling = Ceiling(round(gib * 2**30), "a test", ram << 30)
    return make_plan(config, sizes_of(config, dense), ceiling, use or in_memory())


def _line(plan: Plan, name: str) -> int:
    return next(line.nbytes for line in plan.lines if line.name == name)


@pytest.mark.parametrize(
    ("model", "dense", "total", "without_embedding"),
    [
        ("20b", "bf16", 12.82, 11.74),
        ("20b", "q8", 11.25, 10.67),
        ("20b", "q4", 10.41, 10.11),
        ("120b", "bf16", 60.77, 59.69),
        ("120b", "q8", 58.91, 58.34),
        ("120b", "q4", 57.93, 57.62),
    ],
)
def test_weights_of_the_published_models(
    model: str, dense: Dense, total: float, without_embedding: float
) -> None:
    """The sizes, in GiB, are those that were counted by hand."""
    sizes = sizes_of(MODELS[model], dense)
    assert sizes.total / 2**30 == pytest.approx(total, rel=1e-3)
    resident = sizes.total - sizes.embedding
    assert resident / 2**30 == pytest.approx(without_embedding, rel=1e-3)
    an_expert = 13_219_200 + 17_280
    config = MODELS[model]
    assert sizes.experts == an_expert * config.num_experts * config.num_hidden_layers


@pytest.mark.parametrize(("model", "a_token"), [("20b", 24_576), ("120b", 36_864)])
def test_keys_and_values(model: str, a_token: int) -> None:
    """A token's bytes in the full layers, once for each sequence; 8 bits take 9/16 of 16."""
    long, short = (
        _line(_plan(200, use=in_memory(context=n, parallel=3), config=MODELS[model]), "KV cache")
        for n in (131_072, 4096)
    )
    assert long - short == 3 * a_token * (131_072 - 4096)
    half, quarter = (
        _line(_plan(200, use=in_memory(context=n, kv_bits=8), config=MODELS[model]), "KV cache")
        for n in (131_072, 4096)
    )
    a_small_token = position_bytes(MODELS[model], mx.bfloat16, 8)
    assert half - quarter == a_small_token * (131_072 - 4096)
    assert a_small_token * 16 == 9 * a_token


def test_a_window_is_three_megabytes() -> None:
    """What is kept for reuse are windows of 3.1 MB (20b) and the bytes that were asked for."""
    kept = _line(_plan(16), "prefix cache")
    assert kept / 8 == pytest.approx(3.1e6, rel=0.01)
    assert _line(_plan(16, use=in_memory(cache_bytes=10**9)), "prefix cache") == kept + 10**9


@pytest.mark.parametrize("dense", ALL_DENSE)
@pytest.mark.parametrize("dtype", [mx.bfloat16, mx.float32], ids=str)
def test_sizes_are_those_of_the_loaded_model(tmp_path: Path, dense: Dense, dtype: mx.Dtype) -> None:
    """From the config, from the headers and counted in memory: the same number of bytes."""
    folder = write_converted(tmp_path, dense)
    _, places = read_checkpoint(folder)
    found = tensor_sizes({name: at.spec for name, (_, at) in places.items()}, dtype.size)
    assert found == sizes_of(TINY, dense, dtype.size)
    model = load_model(folder, dtype)
    assert found.total == sum(array.nbytes for array in model.arrays)
    assert found.embedding == sum(array.nbytes for array in model.embedding.arrays)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("dense", ALL_DENSE)
@pytest.mark.parametrize("parallel", [1, 4])
def test_more_memory_never_gives_less_context(model: str, dense: Dense, parallel: int) -> None:
    """Over rising ceilings contexts rise, within the plan; and the model's own is reached."""
    use, contexts = in_memory(parallel=parallel), list[int]()
    for gib in CEILINGS:
        plan = _plan(gib, dense, use, MODELS[model])
        contexts.append(plan.context)
        assert (plan.total <= plan.ceiling.nbytes) == (plan.verdict != "refused")
    assert contexts == sorted(contexts)
    assert contexts[0] == 0
    assert contexts[-1] == 131_072


def test_more_of_anything_never_gives_more_context() -> None:
    """More sequences, and more bytes kept for prefixes, leave less for each."""
    several = [_plan(16, use=in_memory(parallel=n)).context for n in range(1, 60)]
    assert several == sorted(several, reverse=True)
    assert several[0] > several[3] > several[-1] == 0
    kept = [_plan(12, use=in_memory(cache_bytes=n << 27)).context for n in range(8)]
    assert kept == sorted(kept, reverse=True)
    assert kept[0] > kept[-1]
    chunks = [_plan(12, use=in_memory(prefill_chunk=n)).context for n in (128, 512, 1024)]
    assert chunks == sorted(set(chunks), reverse=True)
    q8, q16 = (_plan(12, use=in_memory(kv_bits=bits)).context for bits in (8, 16))
    assert q8 > q16


def test_the_borders_of_the_verdicts() -> None:
    """A plan's own total is just enough; a byte less is not."""
    sizes = sizes_of(GPT_OSS_20B, "q8")
    ample = Ceiling(1 << 40, "a test")
    for context, below in ((131_072, "smaller context"), (MINIMUM_CONTEXT, "refused")):
        use = in_memory(context=context)
        total = make_plan(GPT_OSS_20B, sizes, ample, use).total
        enough = make_plan(GPT_OSS_20B, sizes, Ceiling(total, ""), use)
        assert (enough.verdict, enough.context, enough.total) == ("fits", context, total)
        assert make_plan(GPT_OSS_20B, sizes, Ceiling(total - 1, ""), use).verdict == below


def test_a_smaller_context_is_the_largest_that_fits() -> None:
    """It is a multiple of 1,024, fits when asked for, and the next larger does not."""
    plan = _plan(12)
    assert plan.verdict == "smaller context"
    assert MINIMUM_CONTEXT < plan.context < plan.wanted == 131_072
    assert plan.context % 1024 == 0
    assert plan.remedies[0] == f"pass --context {plan.context}"
    assert _plan(12, use=in_memory(context=plan.context)).verdict == "fits"
    assert _plan(12, use=in_memory(context=plan.context + 1024)).verdict == "smaller context"
    plan.check()


def test_the_embedding_goes_where_it_is_best() -> None:
    """On disk only where memory is too short for what was asked, or for a comfortable context."""
    ample = _plan(11.9, use=in_memory()).context
    assert 4096 < ample < COMFORTABLE_CONTEXT
    assert _plan(11.9, use=Use()) == _plan(11.9, use=Use(embedding="disk"))
    for gib, use in ((16, Use()), (12.5, Use()), (11.9, Use(context=ample))):
        plan = _plan(gib, use=use)
        assert plan.embedding == "memory"
        assert plan == _plan(gib, use=replace(use, embedding="memory"))
    assert _plan(11.9, use=Use(context=ample + 1024)).embedding == "disk"
    assert _plan(5, use=Use()).total == _plan(5, use=Use(embedding="disk")).total


def test_a_short_context_may_be_asked_for() -> None:
    """Less than the minimum is planned as it is, where not even the minimum fits."""
    total = _plan(200, use=in_memory(context=MINIMUM_CONTEXT)).total / 2**30
    assert _plan(total - 0.01, use=in_memory(context=1000)).verdict == "fits"


def test_the_budget_of_keys_and_values() -> None:
    """It is what the ceiling leaves beside all other lines, and at least what was planned."""
    plan = _plan(16, use=in_memory(parallel=4))
    planned = _line(plan, "KV cache") + _line(plan, "prefix cache")
    assert plan.kv_budget == plan.ceiling.nbytes - plan.total + planned >= planned
    assert _plan(10.5).kv_budget == 0


@pytest.mark.parametrize("gib", [10.0, 10.5, 10.8, 11.3, 12, 12.5])
@pytest.mark.parametrize("dense", ALL_DENSE)
@pytest.mark.parametrize("use", [in_memory(), Use(embedding="disk"), in_memory(parallel=8)])
def test_remedies_help(gib: float, dense: Dense, use: Use) -> None:
    """Each remedy, followed to the letter, makes the plan fit, or fit at all if it was refused."""
    plan = _plan(gib, dense, use, ram=16)
    assert plan.verdict != "fits"
    for remedy in plan.remedies:
        context = plan.context if "--context" in remedy else None
        better = _followed(remedy, gib, dense, replace(use, context=context))
        assert better.verdict == "fits" or (plan.verdict == "refused" and better.context)


def _followed(remedy: str, gib: float, dense: Dense, use: Use) -> Plan:
    """The plan after doing what the text says, whose every part must be known here."""
    limit = gib
    for part in remedy.split(" and "):
        match part.rstrip(")").split(" ")[-2:]:
            case ["--dense", "q8"]:
                dense = "q8"
            case ["--dense", "q4"]:
                dense = "q4"
            case ["--embedding", "disk"] | ["(--embedding", "disk"]:
                use = replace(use, embedding="disk")
            case ["--parallel", "1"] | ["(--parallel", "1"]:
                use = replace(use, parallel=1)
            case ["sysctl", setting]:
                limit = int(setting.removeprefix("iogpu.wired_limit_mb=")) / 1024
                assert gib < limit <= 12  # of 16
            case ["--context", n]:
                assert n == str(use.context)
            case other:
                raise AssertionError(other)
    return _plan(limit, dense, use)


def test_cheap_remedies_first() -> None:
    """q8 with the embedding on disk is offered before q4, and no remedy has needless parts."""
    first, second = _plan(11.4, "bf16").remedies
    assert "--embedding disk" in first
    assert "--dense q8" in first
    assert second == "convert it smaller (gptoss-mlx convert SRC DST --dense q4)"


def test_what_nothing_can_help() -> None:
    """The 120b on a Mac with 16 GB: one line that says so."""
    plan = _plan(10.5, config=GPT_OSS_120B, ram=16)
    with pytest.raises(MemoryPlanError, match=r"needs 59\.\d+ GiB, .* 10\.50 GiB .*smaller model"):
        plan.check()


def test_the_sysctl_is_for_macs() -> None:
    """Where the RAM of a Mac is not known, there is no Metal limit to raise."""
    assert "iogpu" in "".join(_plan(11, ram=16).remedies)
    assert "iogpu" not in "".join(_plan(11).remedies)


def test_a_refusal_is_one_line() -> None:
    """What it takes, what there is, who says so, and the best remedy."""
    with pytest.raises(MemoryPlanError) as caught:
        _plan(12, "bf16").check()
    text = str(caught.value)
    assert "\n" not in text
    assert "12.00 GiB (a test)" in text
    assert text.endswith("--dense q8)")


def test_the_table_for_people() -> None:
    """Every line, the sum, the ceiling and the verdict; then the remedies."""
    plan = _plan(12, "bf16")
    table = plan.describe()
    names = [row.split("  ")[0] for row in table[:8]]
    assert names == [*(line.name for line in plan.lines), "total", "ceiling"]
    assert table[8].startswith("refused: ")
    assert [row.strip() for row in table[9:]] == list(plan.remedies)


def test_the_cpu_takes_more() -> None:
    """In float32, and with scores held by numpy, the same context takes more."""
    on_gpu = _plan(200, use=in_memory(context=8192))
    sizes = sizes_of(GPT_OSS_20B, "q8", itemsize=4)
    use = in_memory(context=8192, on_gpu=False)
    on_cpu = make_plan(GPT_OSS_20B, sizes, on_gpu.ceiling, use)
    for name in ("weights", "KV cache", "activations", "overhead"):
        assert _line(on_cpu, name) > _line(on_gpu, name)


def test_a_dense_head_is_cast() -> None:
    """In float32 each token makes a float32 lm_head of a bf16 one, and none of a quantized one."""
    ample, use = Ceiling(1 << 40, "a test"), in_memory(context=8192)
    dense, quantized = (
        make_plan(GPT_OSS_20B, sizes_of(GPT_OSS_20B, width, itemsize=4), ample, use)
        for width in ALL_DENSE[:2]
    )
    more = _line(dense, "activations") - _line(quantized, "activations")
    assert more == 201_088 * 2880 * 4
    in_bf16 = (_line(_plan(200, width, use), "activations") for width in ALL_DENSE)
    assert len(set(in_bf16)) == 1


def test_small_models_get_no_impossible_advice() -> None:
    """A width that convert cannot quantize is not sent there."""
    odd = replace(TINY, hidden_size=96)
    plan = make_plan(odd, sizes_of(odd, "bf16"), Ceiling(1 << 20, "a test"))
    assert plan.verdict == "refused"
    assert "--dense" not in "".join(plan.remedies)


@pytest.mark.parametrize(
    "use",
    [
        in_memory(context=0),
        in_memory(context=131_073),
        in_memory(parallel=0),
        in_memory(cache_bytes=-1),
        in_memory(prefill_chunk=0),
    ],
)
def test_impossible_wishes(use: Use) -> None:
    """They are the caller's mistake, not the machine's."""
    with pytest.raises(UsageError):
        _plan(100, use=use)
