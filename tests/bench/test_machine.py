"""Machine and versions, as they go into an issue."""

from __future__ import annotations

import platform
from importlib.metadata import version

import pytest

from gptoss_mlx.bench import machine
from gptoss_mlx.bench.machine import describe, this_system

from .made_up import SYSTEM


def test_this_machine() -> None:
    """What Python and MLX say of it, in one line."""
    system = this_system()
    assert system.cores >= 1
    assert system.memory > 1 << 28
    assert system.versions["mlx"] == version("mlx")
    line = describe()
    assert "\n" not in line
    for part in (system.chip, platform.python_version(), f"mlx {version('mlx')}"):
        assert part in line


def test_lines() -> None:
    """Machine and system; Python and packages."""
    assert SYSTEM.lines == (
        "Apple M4 Pro, MLX on the GPU, 14 CPU cores, 48 GiB, macOS 26.1",
        "Python 3.12.1, gptoss-mlx 0.1.0, mlx 0.32.4, mlx-lm 0.32.2",
    )


def test_a_mac_is_called_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the release of macOS, not by that of its kernel; a package may be missing."""
    monkeypatch.setattr(platform, "mac_ver", lambda: ("26.1", ("", "", ""), "arm64"))
    monkeypatch.setattr(machine, "_PACKAGES", ("mlx", "no-such-package"))
    system = this_system()
    assert system.system == "macOS 26.1"
    assert system.versions["no-such-package"] == "not installed"
