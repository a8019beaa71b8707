"""Apple's chips for Macs: the memory they are sold with, and how fast it can be read.

Memory sizes and bandwidths are those of Apple's technical specifications (support.apple.com, and
apple.com/mac-mini/specs and apple.com/mac-studio/specs of 2026), in GB as sold and in GB/s. Some
chips come in two widths, which go with the memory size. It does not measure anything, and knows
no model.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["CHIPS", "Chip", "find_chips"]


@dataclass(frozen=True)
class Chip:
    """A chip with the memory sizes (GB) that are read at a bandwidth (10^9 bytes a second)."""

    name: str
    memory: tuple[int, ...]
    bandwidth: float


CHIPS = (
    Chip("M1", (8, 16), 68.25),
    Chip("M1 Pro", (16, 32), 200),
    Chip("M1 Max", (32, 64), 400),
    Chip("M1 Ultra", (64, 128), 800),
    Chip("M2", (8, 16, 24), 100),
    Chip("M2 Pro", (16, 32), 200),
    Chip("M2 Max", (32, 64, 96), 400),
    Chip("M2 Ultra", (64, 128, 192), 800),
    Chip("M3", (8, 16, 24), 100),
    Chip("M3 Pro", (18, 36), 150),
    Chip("M3 Max", (36, 96), 300),  # GPU of 30 cores
    Chip("M3 Max", (48, 64, 128), 400),  # of 40
    Chip("M3 Ultra", (96, 256, 512), 819),
    Chip("M4", (16, 24, 32), 120),
    Chip("M4 Pro", (24, 48, 64), 273),
    Chip("M4 Max", (36,), 410),  # 32 cores
    Chip("M4 Max", (48, 64, 128), 546),  # 40
    Chip("M5", (16, 24, 32), 153),
    Chip("M5 Pro", (24, 48, 64), 307),
    Chip("M5 Max", (36,), 460),  # 32 cores
    Chip("M5 Max", (48, 64, 128), 614),  # 40
    Chip("M5 Ultra", (96, 256, 512), 1200),
    Chip("M6", (16,), 153),
    Chip("M6", (24, 32), 170),
)


def find_chips(name: str | None = None, memory: int | None = None) -> tuple[Chip, ...]:
    """The chips of a name (`M4 Pro`, `Apple M4 Pro`, `m4pro`), with so many GB; None: any.

    Nothing is found where nothing is known: of newer chips, say.
    """
    wanted = _plain(name) if name is not None else None
    return tuple(
        chip
        for chip in CHIPS
        if (wanted is None or _plain(chip.name) == wanted)
        and (memory is None or memory in chip.memory)
    )


def _plain(name: str) -> str:
    return "".join(name.lower().split()).removeprefix("apple")
