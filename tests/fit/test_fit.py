"""Variants, speeds and recommendations, against numbers from elsewhere."""

from __future__ import annotations

from dataclasses import replace

import mlx.core as mx
import pytest

from gptoss_mlx import fit as module
from gptoss_mlx.ceiling import Ceiling
from gptoss_mlx.chips import find_chips
from gptoss_mlx.convert import Dense
from gptoss_mlx.errors import MemoryPlanError, UsageError
from gptoss_mlx.fit import (
    MODELS,
    SHARES,
    VARIANTS,
    Machine,
    ModelName,
    Recommendation,
    Variant,
    Wish,
    a_mac,
    check_conversion,
    decode_bytes,
    fit,
    options_for,
    recommend,
    speed,
    this_machine,
)
from gptoss_mlx.memory import Use, make_plan, sizes_of

GIB = 1 << 30


def _machine(gib: float, ram: int = 0) -> Machine:
    return Machine("a test", Ceiling(round(gib * GIB), "a test", ram * GIB))


@pytest.mark.parametrize(
    ("model", "dense", "gigabytes"),
    [
        ("20b", "bf16", 3.708),
        ("20b", "q8", 2.566),
        ("20b", "q4", 1.958),
        ("120b", "bf16", 5.003),
        ("120b", "q8", 3.552),
        ("120b", "q4", 2.784),
    ],
)
def test_bytes_read_for_a_token(model: ModelName, dense: Dense, gigabytes: float) -> None:
    """Weights as they were counted by hand, and keys and values: 104, 809, 3224 MB (20b)."""
    config, sizes = MODELS[model], sizes_of(MODELS[model], dense)
    at = {n: decode_bytes(config, sizes, n, 16) for n in (0, 4096, 32_768, 131_072)}
    assert at[0] / 1e9 == pytest.approx(gigabytes, rel=8e-3)  # their routers were quantized, too
    keys = [round((at[n] - at[0]) / 1e6) for n in at]
    times = 1.5 if model == "120b" else 1
    assert keys == pytest.approx([0, 104 * times, 809 * times, 3224 * times], rel=5e-3)


def test_narrow_keys_are_read_faster() -> None:
    """Keys and values in 8 bits are 9/16 of those in 16, but for the windows."""
    config, sizes = MODELS["20b"], sizes_of(MODELS["20b"], "q8")
    wide, narrow = (decode_bytes(config, sizes, 100_000, bits) for bits in (16, 8))
    assert wide - narrow == 100_000 * 24_576 * 7 // 16


@pytest.mark.parametrize(
    ("chip", "memory", "roofline"),
    [
        ("M1", 16, 26),
        ("M4", 16, 45),
        ("M4 Pro", 48, 102),
        ("M4 Max", 64, 205),
        ("M3 Ultra", 96, 307),
    ],
)
def test_rooflines(chip: str, memory: int, roofline: int) -> None:
    """20b, q8, 4k of context: the bandwidth divided by 2.67 GB, and the shares of it."""
    read = decode_bytes(MODELS["20b"], sizes_of(MODELS["20b"], "q8"), 4096, 16)
    found = speed(read, find_chips(chip, memory))
    assert found is not None
    assert found.low / SHARES[0] == pytest.approx(roofline, abs=0.7)
    assert found.high / SHARES[1] == pytest.approx(roofline, abs=0.7)


@pytest.mark.parametrize(
    ("chip", "memory", "published"),
    [("M1 Pro", 32, 37), ("M2 Max", 64, 80), ("M3 Ultra", 96, 79), ("M3 Ultra", 96, 119)],
)
def test_published_speeds_lie_within(chip: str, memory: int, published: float) -> None:
    """What llama.cpp and MLX runtimes were seen to reach with the 20b at q8 is what is expected."""
    (row,) = (row for row in fit("20b", a_mac(memory, chip)).rows if row.variant == Variant("q8"))
    assert row.speed is not None
    assert row.speed.low <= published <= row.speed.high


def test_many_chips_are_a_range() -> None:
    """From the slowest to the fastest; nothing is said where none is known."""
    found = speed(10**9, [*find_chips("M1"), *find_chips("M3 Ultra")])
    assert found is not None
    assert (found.low, found.high) == (68.25 * SHARES[0], 819 * SHARES[1])
    assert speed(10**9, ()) is None


def test_every_variant_is_there() -> None:
    """Three formats, two places, two widths; each with the options that chat takes."""
    assert len(set(VARIANTS)) == 12
    assert Variant("q4", "disk", 8).options == ("--kv-bits", "8")
    assert Variant("bf16").options == ()


def test_needs_are_for_the_wish() -> None:
    """More context or more sequences need more; what fits is unlike it the plan's own."""
    needs = {
        (context, parallel): fit("20b", _machine(16), Wish(context, parallel)).rows[0].needed
        for context in (None, 4096, 20_000)
        for parallel in (1, 4)
    }
    assert needs[None, 1] == needs[4096, 1] < needs[20_000, 1] < needs[20_000, 4]


def test_a_context_beyond_the_model() -> None:
    """It is the caller's mistake."""
    with pytest.raises(UsageError, match="131,072"):
        fit("20b", _machine(16), Wish(200_000))


@pytest.mark.parametrize(
    ("gib", "model", "variant"),
    [
        (10.0, None, None),
        (10.7, "20b", Variant("q4", "disk", 8)),
        (11.84, "20b", Variant("q8", "disk")),  # a Mac with 16 GB and macOS 26
        (16, "20b", Variant("q8")),
        (58.3, "20b", Variant("q8")),  # the 120b would fit, with a few thousand tokens
        (59.5, "120b", Variant("q8", "disk")),
        (72, "120b", Variant("q8")),
    ],
)
def test_recommendations(gib: float, model: str | None, variant: Variant | None) -> None:
    """The largest model with enough context, in the variant that gives up least for it."""
    found = recommend(machine=_machine(gib))
    assert (found.model, found.variant) == (model, variant)
    assert (found.context >= 4096) == (model is not None)


def test_more_context_costs_something() -> None:
    """The least change that makes room for what was asked for; the most room if none does."""

    def chosen(context: int) -> Recommendation:
        return recommend(["20b"], _machine(12), Wish(context))

    variants = [chosen(context).variant for context in (10_000, 30_000, 50_000, 120_000)]
    assert variants == [
        Variant("q8"),
        Variant("q8", "disk"),
        Variant("q8", "disk", 8),
        Variant("q4", "disk", 8),
    ]
    assert chosen(30_000).context == 30_000
    assert 50_000 < chosen(120_000).context < 120_000


def test_a_recommendation_knows_its_sizes() -> None:
    """13.8 GB to download, 12.1 to write, as the README has it."""
    found = recommend(machine=_machine(16))
    assert found.download_bytes / 1e9 == pytest.approx(13.76, abs=0.01)
    assert found.disk_bytes / 1e9 == pytest.approx(12.08, abs=0.01)


def test_why_nothing() -> None:
    """What the smallest variant needs, what there is, and what would help."""
    found = recommend(machine=_machine(10, ram=16))
    assert found.model is None
    assert "10.59 GiB" in found.reason
    assert "10.00 GiB (a test)" in found.reason
    assert "iogpu.wired_limit_mb=12288" in found.reason


def test_the_raised_limit() -> None:
    """A Mac has one, which fits more; other machines have none."""
    mac = a_mac(16)
    assert mac.raised is not None
    assert mac.raised.ceiling.nbytes == 12 * GIB
    assert recommend(machine=mac.raised).variant == Variant("q8", "disk")
    assert _machine(16).raised is None
    assert all(row.raised is None for row in fit("20b", _machine(16)).rows)


@pytest.mark.parametrize(
    ("gigabytes", "gib"), [(8, 5.33), (16, 10.67), (18, 12), (32, 21.33), (36, 27), (128, 96)]
)
def test_macs_as_they_are_sold(gigabytes: int, gib: float) -> None:
    """Two thirds or three quarters of the memory, as macOS 15 has it."""
    mac = a_mac(gigabytes)
    assert mac.ceiling.nbytes / GIB == pytest.approx(gib, abs=0.01)
    assert mac.ceiling.physical == gigabytes * GIB
    assert all(gigabytes in chip.memory for chip in mac.chips)


def test_a_mac_that_is_not_sold() -> None:
    """An unknown chip, or one with other memory, is named; a size alone is planned all the same."""
    with pytest.raises(UsageError, match="M4 comes with 16, 24, 32 GB, not 64"):
        a_mac(64, "M4")
    with pytest.raises(UsageError, match="no chip 'M99' is known"):
        a_mac(64, "M99")
    assert a_mac(40).chips == ()


def test_this_machine_on_a_mac(monkeypatch: pytest.MonkeyPatch) -> None:
    """Metal's name and limit tell the chip and its width."""
    ceiling = Ceiling(27 * GIB, "Metal's recommended working set", 36 * GIB)
    monkeypatch.setattr(module, "device_ceiling", lambda: ceiling)
    monkeypatch.setattr(module.mx, "default_device", lambda: "gpu")
    monkeypatch.setattr(mx.metal, "is_available", lambda: True)
    monkeypatch.setattr(module.mx, "device_info", lambda: {"device_name": "Apple M4 Max"})
    here = this_machine()
    assert here.is_here
    assert here.on_gpu
    assert here.ceiling == ceiling
    assert [chip.bandwidth for chip in here.chips] == [410]
    monkeypatch.setattr(module.mx, "device_info", lambda: {"device_name": "Apple M99"})
    assert this_machine().chips == ()


def test_conversions_that_fit_with_the_right_settings() -> None:
    """A conversion is refused only if no setting of chat or serve could load it."""
    config = MODELS["20b"]
    rows = fit("20b", _machine(11.5)).rows
    usable: set[Dense] = {row.variant.dense for row in rows if row.fits}
    assert usable == {"q8", "q4"}
    for dense in usable:
        check_conversion(config, dense, _machine(11.5))
    with pytest.raises(MemoryPlanError, match=r"bf16, the model needs 12\.\d+ GiB.* --dense q8"):
        check_conversion(config, "bf16", _machine(11.5))


@pytest.mark.parametrize(
    ("gib", "dense", "options"),
    [
        (10.7, "q4", ("--kv-bits", "8")),
        (11.84, "q8", ()),
        (16, "q8", ()),
        (12.5, "bf16", ("--kv-bits", "8")),
        (5, "q8", ()),
    ],
)
def test_options_for_a_conversion(gib: float, dense: Dense, options: tuple[str, ...]) -> None:
    """No more than is needed for enough context; none where none would help."""
    assert options_for(MODELS["20b"], dense, _machine(gib)) == options


@pytest.mark.parametrize("gib", [10.7, 11.3, 11.84, 12.2, 12.5, 13, 16])
@pytest.mark.parametrize("context", [None, 8192, 40_000])
def test_what_is_told_is_what_is_recommended(gib: float, context: int | None) -> None:
    """With the options of the best variant the embedding finds the place that it has there."""
    machine = _machine(gib)
    best = recommend(["20b"], machine, Wish(context))
    assert best.variant is not None
    sizes = sizes_of(MODELS["20b"], best.variant.dense)
    use = Use(context and min(context, best.context), kv_bits=best.variant.kv_bits)
    plan = make_plan(MODELS["20b"], sizes, machine.ceiling, use)
    assert (plan.embedding, plan.context) == (best.variant.embedding, best.context)


def test_on_a_cpu_more_is_needed() -> None:
    """In float32."""
    on_cpu = replace(_machine(100), on_gpu=False)
    pairs = zip(fit("20b", on_cpu).rows, fit("20b", _machine(100)).rows, strict=True)
    assert all(ours.needed > theirs.needed for ours, theirs in pairs)
