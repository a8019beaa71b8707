"""Bytes of a token by hand, and where the bandwidth comes from."""

from __future__ import annotations

from pathlib import Path

import pytest
from checkpoints import TINY

from gptoss_mlx.bench import roofline
from gptoss_mlx.bench.roofline import Bandwidth, find_bandwidth, measure_bandwidth, token_bytes
from gptoss_mlx.convert import convert
from gptoss_mlx.fit import a_mac


def _q8(rows: int, columns: int) -> int:
    """Eight bits a number; for each group of 64 a scale and a bias in float32."""
    return rows * columns + rows * columns // 64 * 2 * 4


def _mxfp4(rows: int, columns: int) -> int:
    """Four bits a number; for each block of 32 a scale of eight."""
    return rows * columns // 2 + rows * columns // 32


@pytest.mark.usefixtures("no_tokenizer")
@pytest.mark.parametrize("context", [5, 20])
def test_bytes_of_a_token(source: Path, tmp_path: Path, context: int) -> None:
    """Attention, two of four experts, lm_head, keys and values; small tensors in float32."""
    assert (TINY.num_hidden_layers, TINY.experts_per_token, TINY.sliding_window) == (2, 2, 8)
    convert(source, tmp_path / "mlx", dense="q8")
    q, kv, hidden, width, vocabulary = 192, 64, 128, 96, 257
    attention = _q8(q + 2 * kv, hidden) + _q8(hidden, q)
    small = 4 * (q + 2 * kv + hidden + 6 + 2 * hidden)  # biases, sinks, norms
    router = 2 * 4 * hidden + 4 * 4  # stays in bfloat16; its bias does not
    expert = _mxfp4(2 * width, hidden) + _mxfp4(hidden, width) + 4 * (2 * width + hidden)
    layer = attention + small + router + 2 * expert
    head = _q8(vocabulary, hidden) + 4 * hidden  # with the last norm
    keys = 4 * 2 * kv * (context + min(context, 8))  # a full layer and a sliding one
    assert token_bytes(tmp_path / "mlx", context, 16, 4) == 2 * layer + head + keys


def test_measured() -> None:
    """Some bytes a second: more than any disk, less than any cache of many cores."""
    assert 1e8 < measure_bandwidth(1 << 24) < 1e14


def test_the_chip_counts_where_it_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Apple's figure on a Mac, what was measured elsewhere, or where a chip comes in two widths."""
    monkeypatch.setattr(roofline, "measure_bandwidth", lambda: 90e9)
    assert find_bandwidth() == Bandwidth(90e9)
    assert find_bandwidth().best == 90e9
    monkeypatch.setattr(roofline, "this_machine", lambda: a_mac(24, "M4 Pro"))
    assert find_bandwidth() == Bandwidth(90e9, 273e9, "M4 Pro")
    assert find_bandwidth().best == 273e9
    monkeypatch.setattr(roofline, "this_machine", lambda: a_mac(36))
    assert find_bandwidth().specified is None
