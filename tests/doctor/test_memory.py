"""Memory: the ceiling, Metal's limit, and what fits."""

from __future__ import annotations

import sys

import pytest

from gptoss_mlx import fit
from gptoss_mlx.ceiling import VARIABLE, Ceiling
from gptoss_mlx.doctor import Level, check_memory, examine
from gptoss_mlx.doctor import memory as module
from gptoss_mlx.fit import Machine

GIB = 1 << 30


def _on(gib: float, monkeypatch: pytest.MonkeyPatch, limit: str = "0") -> None:
    """A Mac with 16 GB, on which Metal allows so much."""
    machine = Machine("this Mac", Ceiling(round(gib * GIB), "Metal", 16 * GIB), is_here=True)
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(fit, "this_machine", lambda: machine)
    monkeypatch.setattr(module, "sysctl", {"iogpu.wired_limit_mb": limit}.get)


def test_what_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    """How much there is, of how much, and the variant to take."""
    _on(11.84, monkeypatch)
    memory, limit, fitting = check_memory()
    assert memory.text == "11.84 GiB of 16 GiB for a model (Metal)"
    assert "macOS's own" in limit.text
    assert fitting.text.startswith("20b, q8, embedding on disk: ")
    assert {memory.level, limit.level, fitting.level} == {"ok"}


def test_nothing_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A warning, with what would help: the demo runs all the same."""
    _on(10, monkeypatch)
    fitting = list(check_memory())[-1]
    assert fitting.level == "warning"
    assert "iogpu.wired_limit_mb=12288" in fitting.text


@pytest.mark.parametrize(
    ("limit", "level", "text"),
    [
        ("", "ok", "macOS's own"),
        ("12288", "ok", "iogpu.wired_limit_mb=12288"),
        ("15360", "warning", "leaves macOS only 1.0 GiB: sudo sysctl iogpu.wired_limit_mb=12288"),
    ],
)
def test_the_limit(monkeypatch: pytest.MonkeyPatch, limit: str, level: Level, text: str) -> None:
    """Where somebody has raised it too far, macOS has not enough left."""
    _on(12, monkeypatch, limit)
    finding = list(check_memory())[1]
    assert (finding.name, finding.level) == ("wired limit", level)
    assert text in finding.text


def test_a_size_that_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable is named."""
    monkeypatch.setenv(VARIABLE, "plenty")
    (finding,) = examine("memory", check_memory)
    assert finding.level == "problem"
    assert f"{VARIABLE} is 'plenty'" in finding.text


def test_elsewhere_there_is_no_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sysctl is Macs' own."""
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv(VARIABLE, "100GiB")
    assert [finding.name for finding in check_memory()] == ["memory", "fit"]
