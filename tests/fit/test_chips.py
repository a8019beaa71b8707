"""The table of chips: found by name and memory, and consistent."""

from __future__ import annotations

from collections import Counter

import pytest

from gptoss_mlx.chips import CHIPS, find_chips


@pytest.mark.parametrize("name", ["M4 Pro", "Apple M4 Pro", "m4pro", " apple m4  PRO "])
def test_names(name: str) -> None:
    """As Metal, macOS and people write them."""
    (chip,) = find_chips(name)
    assert (chip.name, chip.bandwidth) == ("M4 Pro", 273)


@pytest.mark.parametrize(
    ("name", "memory", "bandwidth"),
    [
        ("M3 Max", 36, 300),
        ("M3 Max", 48, 400),
        ("M4 Max", 36, 410),
        ("M4 Max", 128, 546),
        ("M5 Max", 36, 460),
        ("M5 Max", 64, 614),
        ("M6", 16, 153),
        ("M6", 24, 170),
    ],
)
def test_two_widths_of_a_chip(name: str, memory: int, bandwidth: float) -> None:
    """The memory tells which of its widths a chip has."""
    assert [chip.bandwidth for chip in find_chips(name, memory)] == [bandwidth]


@pytest.mark.parametrize(("name", "memory"), [("M99", None), ("M4", 64), (None, 7), ("", None)])
def test_what_is_not_known(name: str | None, memory: int | None) -> None:
    """Nothing is guessed."""
    assert find_chips(name, memory) == ()


def test_a_size_is_of_one_width() -> None:
    """No chip and memory size is listed twice, and bandwidths are in GB/s."""
    counts = Counter((chip.name, size) for chip in CHIPS for size in chip.memory)
    assert set(counts.values()) == {1}
    assert all(50 < chip.bandwidth < 2000 for chip in CHIPS)
    assert find_chips() == CHIPS
