"""Every kernel at the sizes of the published models: minutes, and so not among the tests.

    make kernels

Prints a row for each, as figures.py has it, and at the end asserts what the quick tests assert.
"""

from __future__ import annotations

from dataclasses import replace

import mlx.core as mx
import pytest
from helpers import random_model

from gptoss_mlx import load
from gptoss_mlx.convert.synthetic import GPT_OSS_20B

from . import cases, figures
from .cases import TOKENS
from .checks import LIMITS, SEGMENTS, error_of, traced
from .figures import KERNELS, MLX, Kernel
from .test_attention import POSITIONS
from .test_whole_model import assert_equal

pytestmark = pytest.mark.usefixtures("host")

DTYPES = (mx.float32, mx.bfloat16)
LM_HEAD = Kernel("qmv_q8 lm_head", lambda n, d: cases.qmv("q8", n, d, 201_088, plain=True))
EXPERTS_120B = [k for grouped in (False, True) for k in figures.experts(128, grouped=grouped)]


@pytest.fixture(scope="module", autouse=True)
def head() -> None:
    """The head of the table."""
    show(list(figures.HEAD))


def show(row: list[str]) -> None:
    """A row of the table, at once."""
    widths = (36, 12, 7, 8, 7, 6, 6, 8)
    print("".join(cell.ljust(n) for cell, n in zip(row, widths, strict=True)), flush=True)  # noqa: T201


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kernel", [*KERNELS, *EXPERTS_120B, LM_HEAD, MLX], ids=lambda k: k.name)
def test_reads(kernel: Kernel, dtype: mx.Dtype) -> None:
    """Every weight is asked for once, and in few segments."""
    reads, row = figures.traced_row(kernel, dtype)
    show(row)
    assert reads.requested == reads.unique
    if "gemm" in kernel.name:
        assert reads.segments == 2  # half segments of 16 rows; see test_moe_gemm
    elif "MLX" not in kernel.name and "router_topk" not in kernel.name:
        assert reads.segments <= SEGMENTS + 0.01


@pytest.mark.parametrize("tokens", TOKENS[1:])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kernel", KERNELS, ids=lambda k: k.name)
def test_right(kernel: Kernel, dtype: mx.Dtype, tokens: int) -> None:
    """Right for many tokens."""
    error, row = figures.error_row(kernel, dtype, tokens)
    show(row)
    assert error <= (LIMITS[mx.float32] if "router_topk" in kernel.name else LIMITS[dtype])


@pytest.mark.parametrize("positions", POSITIONS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_attention(dtype: mx.Dtype, positions: int) -> None:
    """64 heads over up to 9000 positions, each read once for the 8 heads that share it."""
    case = cases.attention(positions, dtype)
    launch = traced(case)[0]
    k = next(b for b in launch.buffers if b.name == "k")
    size = 8 * positions * 64 * dtype.size
    loads = launch.loads("k")
    error, segments = error_of(case.run(), case), loads.segments / loads.ideal
    shares = [f"{k.requested_read / size:.3f}", f"{k.unique_read / size:.3f}", f"{segments:.3f}"]
    about = [f"attention_decode {positions}", str(dtype).removeprefix("mlx.core."), "1"]
    show([*about, f"{error:.1e}", f"{size / 1e6:.1f}", *shares])
    assert k.requested_read == k.unique_read == size
    assert segments <= SEGMENTS
    assert error <= LIMITS[dtype]


@pytest.mark.parametrize("lengths", [[1], [2], [33], [129, 1, 1], [300, 1]])
def test_demo(monkeypatch: pytest.MonkeyPatch, lengths: list[int]) -> None:
    """The demo with prompts of many lengths: logits as those of the twins."""
    assert_equal(monkeypatch, load("demo", dtype=mx.float32), lengths)


@pytest.mark.parametrize("lengths", [[5, 1, 33, 1], [300, 1]])
def test_a_layer_of_the_20b(monkeypatch: pytest.MonkeyPatch, lengths: list[int]) -> None:
    """Its widths, a sliding and a full layer with few experts: logits as those of the twins."""
    config = replace(GPT_OSS_20B, num_hidden_layers=2, num_experts=8, vocab_size=1024)
    assert_equal(monkeypatch, random_model(config, "q8"), lengths)
