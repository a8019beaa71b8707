"""The README shows what there is: its help texts, its file tree, its commands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import gptoss_mlx
from gptoss_mlx.cli import run

README = (Path(__file__).parent.parent / "README.md").read_text("utf-8")
HELPS = re.findall(r"```console\n\$ gptoss-mlx ?(.*?) ?--help\n(.*?)```", README, re.DOTALL)
PACKAGE = Path(gptoss_mlx.__path__[0])


def test_help_is_shown() -> None:
    """The README holds at least the main help text."""
    assert HELPS[0][0] == ""


@pytest.mark.parametrize(("command", "shown"), HELPS)
def test_help_texts(
    command: str,
    shown: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Every help text in the README is what the command prints on a terminal of 100 columns."""
    monkeypatch.setenv("COLUMNS", "100")
    assert run([*command.split(), "--help"]) == 0
    assert capsys.readouterr().out.strip() == shown.strip()


def test_file_tree() -> None:
    """The tree lists every module of the package, and nothing that is not there."""
    block = README.split("## What is where")[1].split("```")[1]
    listed = set(re.findall(r"^    (\S+)", block, re.MULTILINE))
    there = {p.name + "/" * p.is_dir() for p in PACKAGE.iterdir() if not p.name.startswith("_")}
    assert listed == there - {"convert/", "metal/", "py.typed"}
