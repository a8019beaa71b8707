"""The bars: lengths, labels, widths."""

from __future__ import annotations

import pytest

from gptoss_mlx.bench.plot import Bar, draw, plot

from .made_up import results, turns

TOLD = [*turns("gptoss-mlx", 60), *turns("mlx-lm", 40)]
PLOT = """\
decode tok/s by context
  512 gptoss-mlx ███████████████████▊ 60.0
      mlx-lm     █████████████▏ 40.0
      roofline   ░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░ 109
4,096 gptoss-mlx █████████▉ 30.0
      mlx-lm     ██████▋ 20.0
      roofline   ░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░ 105

decode tok/s of all sequences by batch
1 gptoss-mlx ██████████ 60.0
  mlx-lm     ██████▋ 40.0
8 gptoss-mlx ████████████████████████████████████████ 240
  mlx-lm     ██████████████████████████▋ 160""".splitlines()


def test_the_plot() -> None:
    """A group for each context and each batch; all bars of a plot on one scale."""
    lines = list(plot(results(TOLD), 58))
    assert [line.text for line in lines] == PLOT
    assert [line.name for line in lines[:4]] == ["", "gptoss-mlx", "mlx-lm", "roofline"]


@pytest.mark.parametrize("width", [30, 80, 120])
def test_no_line_is_wider(width: int) -> None:
    """Whatever the terminal's width; the longest bar uses it, but for one column."""
    bars = [line.text for line in plot(results(TOLD), width) if line.name]
    assert max(map(len, bars)) in (width - 1, width)


def test_one_context_only() -> None:
    """One group, without batches."""
    lines = list(draw([("64", [Bar("gptoss-mlx", 5.0), Bar("roofline", 10.0)])], 40))
    assert [line.text for line in lines] == [
        "64 gptoss-mlx ██████████▌ 5.00",
        "   roofline   ░░░░░░░░░░░░░░░░░░░░░ 10.0",
    ]


def test_a_roofline_far_above_is_cut_off() -> None:
    """So that the sides can be told apart; the arrow says so, and the figure stays."""
    lines = list(draw([("1", [Bar("gptoss-mlx", 10.0), Bar("roofline", 400.0)])], 40))
    assert [line.text for line in lines] == [
        "1 gptoss-mlx █████▌ 10.0",
        "  roofline   ░░░░░░░░░░░░░░░░░░░░░› 400",
    ]


def test_nothing_to_draw() -> None:
    """No readings, no lines."""
    assert list(plot(results([]), 80)) == []
