"""System, Python, packages and GPU, on Macs that are only pretended."""

from __future__ import annotations

import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version

import mlx.core as mx
import pytest

from gptoss_mlx.doctor import Level, check_device, check_packages, check_system, examine, machine
from gptoss_mlx.doctor.finding import Finding
from gptoss_mlx.errors import UsageError


def _pretend_mac(
    monkeypatch: pytest.MonkeyPatch, release: str, processor: str, translated: str
) -> None:
    values = {"machdep.cpu.brand_string": "Apple M4 Pro", "sysctl.proc_translated": translated}
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(platform, "mac_ver", lambda: (release, ("", "", ""), processor))
    monkeypatch.setattr(platform, "machine", lambda: processor)
    monkeypatch.setattr(machine, "sysctl", values.get)


@pytest.mark.parametrize(
    ("release", "processor", "translated", "level", "text"),
    [
        ("26.1", "arm64", "0", "ok", "macOS 26.1, Apple M4 Pro"),
        ("15.6", "arm64", "", "ok", "macOS 15.6, Apple M4 Pro"),
        ("14.7", "arm64", "0", "warning", "swapped out; update it"),
        ("13.7", "arm64", "0", "problem", "MLX needs macOS 14; update it"),
        ("15.6", "x86_64", "1", "problem", "install an arm64 one"),
        ("15.6", "x86_64", "0", "problem", "needs a Mac with Apple silicon"),
        ("", "arm64", "0", "problem", "MLX needs macOS 14"),
    ],
)
def test_macs(
    monkeypatch: pytest.MonkeyPatch,
    release: str,
    processor: str,
    translated: str,
    level: Level,
    text: str,
) -> None:
    """What MLX runs on, what it runs on badly, and what it does not run on, with the remedy."""
    _pretend_mac(monkeypatch, release, processor, translated)
    system, python = check_system()
    assert (system.name, system.level) == ("system", level)
    assert text in system.text
    assert python.text == f"{platform.python_version()} ({sys.executable})"


def test_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Linux is well, and slow."""
    monkeypatch.setattr(sys, "platform", "linux")
    system = next(check_system())
    assert system.level == "ok"
    assert platform.release() in system.text
    assert "on the CPU, slowly" in system.text


def test_a_system_without_sysctl(monkeypatch: pytest.MonkeyPatch) -> None:
    """No such program, or one that hangs, is an empty answer."""
    errors = iter([FileNotFoundError("sysctl"), subprocess.TimeoutExpired("sysctl", 5)])

    def fail(*_: object, **__: object) -> None:
        raise next(errors)

    monkeypatch.setattr(subprocess, "run", fail)
    assert machine.sysctl("a") == machine.sysctl("b") == ""


def test_packages_as_they_are() -> None:
    """Versions of three, and that all others are there."""
    findings = {finding.name: finding for finding in check_packages()}
    assert findings["mlx"].text == version("mlx")
    assert {finding.level for finding in findings.values()} == {"ok"}
    assert findings["packages"].text.startswith("all ")


def test_packages_that_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """One is missing, one too old; what belongs to extras and other systems is not needed."""
    needed = [
        "mlx>=0.32",
        "no-such-package>=1",
        "click>=8.1",
        "torch>=2; extra == 'parity'",
        "pywin32; sys_platform == 'win32'",
    ]

    def have(name: str) -> str:
        if name in ("no-such-package", "mlx-lm"):
            raise PackageNotFoundError(name)
        return {"mlx": "0.30.1"}.get(name) or version(name)

    monkeypatch.setattr(machine, "requires", {"gptoss-mlx": needed}.get)
    monkeypatch.setattr(machine, "version", have)
    findings = {finding.name: finding for finding in check_packages()}
    assert findings["mlx-lm"] == Finding("mlx-lm", "not installed: pip install mlx-lm", "problem")
    assert findings["packages"].level == "problem"
    assert findings["packages"].text == (
        "mlx is 0.30.1, not >=0.32; no-such-package is not installed: "
        "install gptoss-mlx anew (in its clone: pip install -e .)"
    )


def test_a_mac_without_metal(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a virtual machine: a problem, which it is not elsewhere."""
    monkeypatch.setattr(mx, "default_device", lambda: mx.Device(mx.cpu))
    for system, level in (("darwin", "problem"), ("linux", "ok")):
        monkeypatch.setattr(sys, "platform", system)
        (finding,) = check_device()
        assert finding.level == level
        assert finding.text.startswith("CPU")


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (UsageError("do this"), "do this"),
        (ModuleNotFoundError("No module named 'mlx'"), "No module named 'mlx': install gptoss-mlx"),
        (ZeroDivisionError("oh"), "could not be looked at: ZeroDivisionError('oh')"),
    ],
)
def test_checks_that_fail(error: Exception, text: str) -> None:
    """What was found before remains, and the failure is a problem by the check's name."""

    def check():
        yield Finding("first", "well")
        raise error

    first, last = examine("this", check)
    assert first.text == "well"
    assert (last.name, last.level) == ("this", "problem")
    assert text in last.text
