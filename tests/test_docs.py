"""The pages in docs/: what they show is what commands print, and their links lead somewhere."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from gptoss_mlx.cli import run
from gptoss_mlx.doctor.surroundings import KNOWN_VARIABLES

DOCS = Path(__file__).parent.parent / "docs"
PAGES = sorted(DOCS.glob("*.md"))
SHOWN = [
    (page.name, *block)
    for page in PAGES
    for block in re.findall(
        r"```console\n\$ gptoss-mlx (.*?)\n(.*?)```", page.read_text(), re.DOTALL
    )
]


@pytest.mark.parametrize(("page", "arguments", "shown"), SHOWN)
def test_what_is_shown(
    page: str, arguments: str, shown: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every command with its output prints just that."""
    run(shlex.split(arguments))
    assert capsys.readouterr().out == shown, page


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links(page: Path) -> None:
    """To pages and files of the repository."""
    for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
        assert (DOCS / target).exists(), target


def test_all_variables_are_explained() -> None:
    """Each that the program reads is in the table of the troubleshooting page."""
    text = (DOCS / "troubleshooting.md").read_text()
    rows = re.findall(r"^\| `(GPTOSS_MLX_[A-Z_]+)`", text, re.MULTILINE)
    assert sorted(rows) == sorted(KNOWN_VARIABLES)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_are_there(page: Path) -> None:
    """Every `gptoss-mlx COMMAND` in a page is a command."""
    from gptoss_mlx.cli import cli

    found = set(re.findall(r"gptoss-mlx ([a-z]+)\b", page.read_text()))
    assert found <= cli.commands.keys()
