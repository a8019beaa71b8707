"""router_topk: the best experts of each token."""

from __future__ import annotations

from collections.abc import Callable

import mlx.core as mx
import numpy as np
import pytest
from helpers import array
from numpy.typing import NDArray

from gptoss_mlx.kernels import metal

from . import cases
from .cases import TOKENS
from .checks import (
    assert_clean,
    assert_reads_once,
    assert_right,
    assert_same_in_every_order,
    traced,
)
from .inputs import TOP

DTYPES = (mx.float32, mx.bfloat16)
EXPERTS = (32, 128)


@pytest.mark.usefixtures("host")
@pytest.mark.parametrize("tokens", TOKENS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("experts", EXPERTS)
def test_right(experts: int, dtype: mx.Dtype, tokens: int) -> None:
    """The largest logits, the largest first, of equal ones the first; and their softmax."""
    assert_right(cases.router(tokens, dtype, experts))


@pytest.mark.usefixtures("host")
@pytest.mark.parametrize("experts", EXPERTS)
def test_same_in_every_order(experts: int) -> None:
    """Bit by bit, whichever thread comes first."""
    assert_same_in_every_order(cases.router(5, mx.bfloat16, experts))


@pytest.mark.usefixtures("host")
@pytest.mark.parametrize("experts", EXPERTS)
def test_reads_each_logit_once(experts: int) -> None:
    """Every logit once."""
    [launch] = traced(cases.router(5, mx.bfloat16, experts))
    assert_reads_once(launch, "logits")


@pytest.mark.usefixtures("clang")
@pytest.mark.parametrize("experts", EXPERTS)
def test_lint(experts: int) -> None:
    """The lint finds nothing."""
    assert_clean(cases.router(2, mx.bfloat16, experts))


@pytest.mark.usefixtures("host")
@pytest.mark.parametrize("experts", [4, 5, *EXPERTS])
def test_all_logits_equal(experts: int) -> None:
    """The first experts then, each with the same score."""
    found = metal.router_topk(mx.zeros((2, experts)), TOP)
    assert found.ids.tolist() == [[0, 1, 2, 3]] * 2
    assert found.scores.tolist() == [[0.25] * 4] * 2


STRANGE: dict[str, Callable[[int], NDArray[np.float64]]] = {
    "all NaN": lambda n: np.full(n, np.nan),
    "one NaN": lambda n: np.where(np.arange(n) == 3, np.nan, np.arange(n)),
    "one number": lambda n: np.where(np.arange(n) == 3, 1.0, np.nan),
    "all minus infinity": lambda n: np.full(n, -np.inf),
    "few finite": lambda n: np.where(np.arange(n) < 2, 1.0, -np.inf),
    "infinity": lambda n: np.where(np.arange(n) == 7, np.inf, 0.0),
}


@pytest.mark.usefixtures("host")
@pytest.mark.parametrize("case", STRANGE)
@pytest.mark.parametrize("experts", EXPERTS)
def test_strange_logits(experts: int, case: str) -> None:
    """Ids are experts whatever the logits are: other kernels read where they point."""
    logits = mx.array(STRANGE[case](experts).astype(np.float32))[None]
    found = metal.router_topk(logits, TOP)
    assert (array(found.ids) < experts).all()
    if case == "one NaN":
        assert found.ids.tolist() == [[experts - 1, experts - 2, experts - 3, experts - 4]]
    if case == "few finite":
        assert found.ids[0, :2].tolist() == [0, 1]
        assert found.scores.tolist() == [[0.5, 0.5, 0, 0]]
