"""How much memory a model may take on this machine, and MLX being held to it.

On a Mac that is what Metal recommends (it follows the sysctl iogpu.wired_limit_mb), elsewhere the
GPU's memory or the RAM, within the limits of a container. GPTOSS_MLX_MEMORY overrides it. It does
not know models.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx

from gptoss_mlx.errors import UsageError

__all__ = [
    "VARIABLE",
    "Ceiling",
    "available_ram",
    "cgroup_limit",
    "device_ceiling",
    "mac_ceiling",
    "parse_size",
    "set_limits",
]

VARIABLE = "GPTOSS_MLX_MEMORY"  # such as 12GiB
_MIB, _GIB = 1 << 20, 1 << 30
_UNITS = {"": 1, "mb": 10**6, "gb": 10**9, "m": _MIB, "mib": _MIB, "g": _GIB, "gib": _GIB}


@dataclass(frozen=True)
class Ceiling:
    """How much memory may be used, and who says so; `physical` is all RAM of a Mac, else 0."""

    nbytes: int
    source: str
    physical: int = 0

    @property
    def safe_wired_limit(self) -> int:
        """What iogpu.wired_limit_mb can be raised to, with room left for macOS; 0: not at all."""
        raised = self.physical - max(4 * _GIB, self.physical // 8)
        return raised // _MIB * _MIB if raised > self.nbytes else 0


def device_ceiling() -> Ceiling:
    """How much memory there is for a model here; GPTOSS_MLX_MEMORY overrides it.

    Raises:
        UsageError: GPTOSS_MLX_MEMORY is no size.
    """
    info = mx.device_info() if mx.default_device() == mx.Device(mx.gpu) else {}
    physical = int(info.get("memory_size", 0)) if mx.metal.is_available() else 0
    if text := os.environ.get(VARIABLE):
        return Ceiling(parse_size(text, VARIABLE), VARIABLE, physical)
    if working_set := info.get("max_recommended_working_set_size"):
        return Ceiling(int(working_set), "Metal's recommended working set", physical)
    if total := info.get("total_memory"):
        return Ceiling(int(total), "the GPU's memory")
    limit, available = cgroup_limit(), available_ram()
    if limit is not None and limit < available:
        return Ceiling(limit, "the container's limit")
    return Ceiling(available, "RAM available")


def mac_ceiling(gigabytes: int) -> Ceiling:
    """What Metal recommends on a Mac with so much memory: two thirds of it, from 36 GB on 3/4.

    That is what macOS up to 15 says; macOS 26 was seen to allow 74 to 84%. Sources: the
    recommendedMaxWorkingSetSize in public logs of llama.cpp and MLX.
    """
    share = 2 / 3 if gigabytes < 36 else 3 / 4
    source = f"Metal's limit in macOS 15 with {gigabytes} GB"
    return Ceiling(int(gigabytes * _GIB * share), source, gigabytes * _GIB)


def parse_size(text: str, name: str = "a size") -> int:
    """Bytes of `12GiB`, `11500 MB`, `12g` (2^30) or a plain number.

    Raises:
        UsageError: it is none of them.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]*)\s*", text)
    unit = _UNITS.get(match[2].lower()) if match else None
    nbytes = int(float(match[1]) * unit) if match and unit else 0
    if not nbytes:
        raise UsageError(f"{name} is {text!r}, which is no size: give one such as 12GiB or 11500MB")
    return nbytes


def available_ram() -> int:
    """What programs can still take without swapping; all of it where the system does not say."""
    meminfo = Path("/proc/meminfo")
    if meminfo.is_file() and (match := re.search(r"MemAvailable:\s+(\d+) kB", meminfo.read_text())):
        return int(match[1]) << 10
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def cgroup_limit(
    own: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")
) -> int | None:
    """The smallest memory limit of this process's control groups, of either version."""
    if not own.is_file():
        return None
    limits: list[int] = []
    for line in own.read_text().splitlines():
        _, controllers, group = line.split(":", 2)
        if not controllers:
            base, file = root, "memory.max"
        elif "memory" in controllers.split(","):
            base, file = root / "memory", "memory.limit_in_bytes"
        else:
            continue
        # a container may see its own group at the root, whatever the path says
        folder = base / group.strip("/")
        for place in (folder, *folder.parents):
            if place.is_relative_to(base) and (place / file).is_file():
                text = (place / file).read_text().strip()
                limits += [int(text)] if text.isdigit() else []  # "max" is none
    return min(limits, default=None)


def set_limits(ceiling: Ceiling) -> None:
    """Hold MLX to a ceiling, and on a Mac keep what it holds from being swapped out.

    MLX prepares work ahead of the GPU only while its arrays stay below the limit, so that a long
    prompt does not take more than a layer or two. Before macOS 15 nothing can be wired.
    """
    if not mx.metal.is_available():
        return
    mx.set_memory_limit(ceiling.nbytes)
    allowed = int(mx.device_info()["max_recommended_working_set_size"])
    mx.set_wired_limit(min(ceiling.nbytes, allowed))
