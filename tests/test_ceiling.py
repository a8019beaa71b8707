"""How much memory there is: Metal's word, the container's limit, the RAM, or what was set."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gptoss_mlx import ceiling
from gptoss_mlx.ceiling import VARIABLE, Ceiling, device_ceiling, parse_size, set_limits
from gptoss_mlx.errors import UsageError

GIB = 1 << 30


class _Device:
    """Stands for mlx.core where there is a GPU; remembers the limits."""

    gpu = "gpu"

    def __init__(self, kind: str = "gpu", *, metal: bool = True, **info: Any) -> None:
        self._kind = kind
        self.metal = SimpleNamespace(is_available=lambda: metal)
        self.limits: dict[str, int] = {}
        self._info = info

    def default_device(self) -> str:
        return self._kind

    def Device(self, kind: str) -> str:  # noqa: N802 - mlx's name
        return kind

    def device_info(self) -> dict[str, Any]:
        return self._info

    def set_memory_limit(self, limit: int) -> None:
        self.limits["memory"] = limit

    def set_wired_limit(self, limit: int) -> None:
        self.limits["wired"] = limit


def _mac() -> _Device:
    return _Device(max_recommended_working_set_size=11 * GIB, memory_size=16 * GIB)


def test_on_a_mac_metal_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    """The recommended working set, which is less than the RAM."""
    monkeypatch.setattr(ceiling, "mx", _mac())
    assert device_ceiling() == Ceiling(11 * GIB, "Metal's recommended working set", 16 * GIB)


def test_on_another_gpu_its_memory_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    """CUDA devices tell their own memory, and no sysctl raises it."""
    monkeypatch.setattr(ceiling, "mx", _Device(metal=False, total_memory=24 * GIB))
    assert device_ceiling() == Ceiling(24 * GIB, "the GPU's memory")


def test_without_a_gpu_the_ram_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is available of it, unless the container may have less."""
    monkeypatch.setattr(ceiling, "mx", _Device("cpu", metal=False))
    monkeypatch.setattr(ceiling, "available_ram", lambda: 8 * GIB)
    limits = iter([None, 9 * GIB, 3 * GIB])
    monkeypatch.setattr(ceiling, "cgroup_limit", lambda: next(limits))
    assert device_ceiling() == device_ceiling() == Ceiling(8 * GIB, "RAM available")
    assert device_ceiling() == Ceiling(3 * GIB, "the container's limit")


def test_this_machine_has_some() -> None:
    """The real thing, whatever it is: more than this process has taken."""
    assert device_ceiling().nbytes > 64 << 20


def test_the_variable_overrides(monkeypatch: pytest.MonkeyPatch) -> None:
    """GPTOSS_MLX_MEMORY is taken at its word; an empty one is none."""
    monkeypatch.setattr(ceiling, "mx", _mac())
    monkeypatch.setenv(VARIABLE, "10.5GiB")
    assert device_ceiling() == Ceiling(10 * GIB + GIB // 2, VARIABLE, 16 * GIB)
    monkeypatch.setenv(VARIABLE, "")
    assert device_ceiling().nbytes == 11 * GIB


@pytest.mark.parametrize(
    ("text", "nbytes"),
    [
        ("12GiB", 12 * GIB),
        (" 1.5 gib ", 3 * GIB // 2),
        ("12g", 12 * GIB),
        ("512M", 512 << 20),
        ("64 MiB", 64 << 20),
        ("12GB", 12 * 10**9),
        ("11500mb", 11_500 * 10**6),
        ("12345678", 12_345_678),
    ],
)
def test_sizes_people_write(text: str, nbytes: int) -> None:
    """Binary and decimal units, fractions, spaces."""
    assert parse_size(text) == nbytes


@pytest.mark.parametrize("text", ["12 apples", "GiB", "-1GiB", "0", "0.0001", "1e9", "12GiB!", "²"])
def test_what_is_no_size(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line says which variable is wrong, what it is, and what it should look like."""
    monkeypatch.setenv(VARIABLE, text)
    with pytest.raises(UsageError, match=f"^{VARIABLE} is '.*such as 12GiB") as caught:
        device_ceiling()
    assert text in str(caught.value)


@pytest.mark.parametrize(
    ("ceiling_gib", "ram_gib", "limit_gib"),
    [
        (10.67, 16, 12),
        (16, 24, 20),
        (27, 36, 31.5),
        (96, 128, 112),
        (12, 16, 0),
        (5, 8, 0),
        (9, 0, 0),
    ],
)
def test_the_limit_that_is_safe(ceiling_gib: float, ram_gib: int, limit_gib: float) -> None:
    """It leaves macOS 4 GiB or an eighth, and is none where that is no gain."""
    found = Ceiling(round(ceiling_gib * GIB), "", ram_gib * GIB).safe_wired_limit
    assert found == limit_gib * GIB


def test_limits_are_set_on_macs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Arrays stay below the ceiling; no more is wired than Metal allows."""
    mac = _mac()
    monkeypatch.setattr(ceiling, "mx", mac)
    set_limits(Ceiling(10 * GIB, ""))
    assert mac.limits == {"memory": 10 * GIB, "wired": 10 * GIB}
    set_limits(Ceiling(14 * GIB, ""))
    assert mac.limits == {"memory": 14 * GIB, "wired": 11 * GIB}


def test_limits_are_left_alone_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is wired where there is no Metal."""
    linux = _Device("cpu", metal=False)
    monkeypatch.setattr(ceiling, "mx", linux)
    set_limits(Ceiling(GIB, ""))
    assert linux.limits == {}


V1, V2 = "memory/{}memory.limit_in_bytes", "{}memory.max"


@pytest.mark.parametrize(
    ("own", "files", "limit"),
    [
        pytest.param("0::/", {V2.format(""): "5000"}, 5000, id="v2-at-the-root"),
        pytest.param("0::/a/b", {V2.format("a/"): "7000"}, 7000, id="v2-of-the-parent"),
        pytest.param(
            "0::/a/b", {V2.format("a/"): "7000", V2.format("a/b/"): "9000"}, 7000, id="v2-least"
        ),
        pytest.param(
            "0::/a", {V2.format("a/"): "max", V2.format(""): "8000"}, 8000, id="v2-max-is-none"
        ),
        pytest.param("0::/a", {V2.format("a/"): "max"}, None, id="v2-none"),
        pytest.param(
            "5:cpu:/x\n4:cpu,memory:/c\n0::/", {V1.format("c/"): "6000"}, 6000, id="v1-of-its-own"
        ),
        pytest.param("4:memory:/c", {V1.format(""): "6500"}, 6500, id="v1-in-a-container"),
        pytest.param(
            "5:cpu:/x", {V1.format(""): "1", V2.format(""): "1"}, None, id="v1-not-memory"
        ),
        pytest.param(None, {V2.format(""): "1"}, None, id="no-cgroups"),
    ],
)
def test_limits_of_containers(
    tmp_path: Path, own: str | None, files: dict[str, str], limit: int | None
) -> None:
    """The smallest of the process's own group and those above it, in either version."""
    root = tmp_path / "fs"
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text + "\n")
    if own is not None:
        (tmp_path / "cgroup").write_text(own + "\n")
    assert ceiling.cgroup_limit(tmp_path / "cgroup", root) == limit
