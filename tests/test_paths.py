"""Tests of gptoss_mlx.paths."""

from __future__ import annotations

from pathlib import Path

import pytest

from gptoss_mlx.cli import run
from gptoss_mlx.paths import expand


def test_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """A `~` at the beginning is the home folder, and nothing else is."""
    monkeypatch.setenv("HOME", "/home/me")
    assert expand("~/a") == Path("/home/me/a")
    assert expand("a/~") == Path("a/~")


def test_home_of_nobody(capsys: pytest.CaptureFixture[str]) -> None:
    """It stays as it is, and what is not there is told in one line."""
    assert expand("~nobody-at-all/a") == Path("~nobody-at-all/a")
    assert run(["generate", "--model", "~nobody-at-all/model", "Hi"]) == 1
    assert capsys.readouterr().err.count("\n") == 1
