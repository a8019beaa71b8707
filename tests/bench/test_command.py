"""`gptoss-mlx bench`: what it prints, what it refuses, how it is stopped."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Iterator, Sequence

import pytest

from gptoss_mlx.bench import roofline, turns
from gptoss_mlx.bench.events import Doing, Failure
from gptoss_mlx.bench.roofline import Bandwidth
from gptoss_mlx.bench.sides import SideName
from gptoss_mlx.bench.turns import Turn
from gptoss_mlx.bench.workload import Workload
from gptoss_mlx.cli import run

from . import made_up

command = importlib.import_module("gptoss_mlx.cli.bench")  # the package's `bench` is the command
SMALL = ("bench", "demo", "--contexts", "512,4096", "--batches", "1,8")
Told = Callable[[Workload, Sequence[SideName], int], Iterator[Turn]]


@pytest.fixture(autouse=True)
def bandwidth(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody reads a gigabyte for it."""
    monkeypatch.setattr(roofline, "find_bandwidth", lambda: Bandwidth(10e9))


@pytest.fixture
def tells(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """What sides tell instead of measuring; an exception is raised where it comes."""

    def prepare(*told: Turn | type[BaseException]) -> None:
        def in_turns(*_: object) -> Iterator[Turn]:
            for turn in told:
                if isinstance(turn, type):
                    raise turn
                yield turn

        monkeypatch.setattr(turns, "in_turns", in_turns)

    return prepare


OURS, THEIRS = made_up.turns("gptoss-mlx", 100), made_up.turns("mlx-lm", 80)


def test_tables_and_plot(
    tells: Callable[..., None], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The text, the bars below it in the terminal's width; no colours in a pipe, nothing else."""
    tells(*OURS, *THEIRS)
    monkeypatch.setenv("COLUMNS", "60")
    assert run([*SMALL, "--compare", "mlx-lm", "--plot"]) == 0
    output = capsys.readouterr()
    assert output.err == ""
    assert "\x1b" not in output.out
    tables, plot = output.out.split("\n\ndecode tok/s by context\n")
    assert (
        "|         | ratio      |    1.25 |   1.25 |   0.80 |   0.80 |  1.00 |          |" in tables
    )
    assert max(map(len, plot.splitlines())) <= 60
    assert plot.count("gptoss-mlx █") == plot.count("mlx-lm     █") == 4


def test_json(tells: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    """One object."""
    tells(*OURS)
    assert run([*SMALL, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert [row["context"] for row in report["contexts"]] == [512, 4096]
    assert report["sides"].keys() == {"gptoss-mlx"}


def test_stopped(tells: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    """What was measured until then, and the shell's exit code."""
    tells(*OURS[:7], KeyboardInterrupt)
    assert run([*SMALL]) == 130
    output = capsys.readouterr()
    assert "|     512 |   9,474 |   95.0 |  54 ms | 53 ms | 12.00 |" in output.out
    assert "- medians of what there was when it was stopped, in round 2 of 3" in output.out
    assert output.err == "Stopped.\n"


def test_stopped_at_once(tells: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing was measured, so there is no table."""
    tells(Turn(0, "gptoss-mlx", Doing("loading")), KeyboardInterrupt)
    assert run([*SMALL]) == 130
    assert capsys.readouterr() == ("", "Stopped.\n")


def test_stopping_ends_the_process(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ctrl-C in the second of many rounds that are really measured: the first round's table."""

    def interrupt(turn: Turn, _: int) -> None:
        if turn.round == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(command, "_show_progress", interrupt)
    little = ("--contexts", "8", "--batches", "1", "--tokens", "2", "--rounds", "100")
    assert run(["bench", "demo", *little]) == 130
    output = capsys.readouterr().out
    assert "|       8 |" in output
    assert "when it was stopped, in round 2 of 100" in output
    assert made_up.processes() == []


def test_a_side_that_fails(tells: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    """The other one's table, then one line, and exit code 1."""
    tells(*OURS, Turn(0, "mlx-lm", Failure("its process was killed: do something")))
    assert run([*SMALL, "--compare", "mlx-lm"]) == 1
    output = capsys.readouterr()
    assert "|     512 | gptoss-mlx |  10,000 |" in output.out
    assert output.err == "Error: mlx-lm: its process was killed: do something\n"


def test_details_of_a_failure(
    tells: Callable[..., None], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the process said, if somebody wants to know; without a reading there is no table."""
    monkeypatch.setenv("GPTOSS_MLX_DEBUG", "1")
    tells(Turn(0, "gptoss-mlx", Failure("no luck", "Traceback and so on")))
    assert run([*SMALL]) == 1
    assert capsys.readouterr() == ("", "Traceback and so on\nError: gptoss-mlx: no luck\n")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["demo", "--contexts", "512,many"], "'512,many' is no list of sizes such as 512,4096"),
        (["demo", "--contexts", ""], "'' is no list of sizes"),
        (["demo", "--batches", "0,1"], "'0,1' is no list of sizes"),
        (["demo", "--tokens", "1"], "x>=2"),
        (["demo", "--rounds", "0"], "x>=1"),
        (["demo", "--compare", "llama.cpp"], "'mlx-lm'"),
        (["demo", "--json", "--plot"], "--plot draws in a terminal, --json is for scripts"),
        (["demo", "--contexts", "200000"], "1..131,072"),
        (["20b"], "no 20b is installed: `gptoss-mlx download 20b --convert` installs one"),
        ([], "no model given and none installed"),
        ([], "; gptoss-mlx bench demo works now"),
    ],
)
def test_mistakes(
    arguments: list[str],
    text: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """One line, and exit code 2; nothing is measured."""
    monkeypatch.setenv("GPTOSS_MLX_DATA", str(tmp_path_factory.mktemp("data")))
    monkeypatch.delenv("GPTOSS_MLX_MODEL", raising=False)
    assert run(["bench", *arguments]) == 2
    output = capsys.readouterr()
    assert text in output.err
    assert output.err.count("\n") == 1
    assert output.out == ""


def test_without_mlx_lm(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A comparison needs it, and is told how to get it."""

    def find_nothing(_: str) -> None: ...

    monkeypatch.setattr(command, "find_spec", find_nothing)
    assert run([*SMALL, "--compare", "mlx-lm"]) == 2
    assert capsys.readouterr().err == "Error: --compare mlx-lm needs mlx-lm: pip install mlx-lm\n"
