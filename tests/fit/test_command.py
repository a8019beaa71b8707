"""`gptoss-mlx fit`: what it prints, as text and as JSON, and its exit code."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from gptoss_mlx.ceiling import VARIABLE
from gptoss_mlx.cli import run
from gptoss_mlx.fit import a_mac, fit, recommend


def _report(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> dict[str, Any]:
    assert run(["fit", "--json", *arguments]) == code
    return json.loads(capsys.readouterr().out)


def test_json_holds_every_figure(capsys: pytest.CaptureFixture[str]) -> None:
    """Machine, variants, recommendation and formula, as the library has them."""
    report = _report(capsys, "--memory", "16GB")
    assert report["machine"]["ceiling_bytes"] == a_mac(16).ceiling.nbytes
    assert report["machine"]["raised_ceiling_bytes"] == 12 << 30
    assert [model["model"] for model in report["models"]] == ["20b", "120b"]
    for given, row in zip(report["models"][0]["variants"], fit("20b", a_mac(16)).rows, strict=True):
        assert given["dense"] == row.variant.dense
        assert given["context"] == row.plan.context
        assert given["needed_bytes"] + given["left_bytes"] == row.plan.ceiling.nbytes
    assert report["recommendation"]["context"] == recommend(machine=a_mac(16)).context
    assert report["with_limit_raised"]["variant"]["dense"] == "q8"
    share, (low, high) = report["estimate"]["shares"], report["recommendation"]["speed"]
    read = report["recommendation"]["read_bytes"]
    rates = [chip["gigabytes_per_second"] * 1e9 / read for chip in report["machine"]["chips"]]
    assert low == pytest.approx(min(rates) * share[0], abs=0.05)
    assert high == pytest.approx(max(rates) * share[1], abs=0.05)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["20b", "--memory", "16GB"], 0),
        (["20b", "--memory", "8"], 1),
        (["120b", "--memory", "64gb"], 1),
        (["120b", "--memory", "96"], 0),
        (["20b", "--memory", "16", "--context", "9000"], 0),
        (["20b", "--memory", "16", "--context", "10000"], 1),
        (["20b", "--memory", "24", "--context", "100000", "--parallel", "4"], 1),
        (["--memory", "24", "--context", "20000", "--parallel", "4"], 0),
    ],
)
def test_the_exit_code(arguments: list[str], code: int, capsys: pytest.CaptureFixture[str]) -> None:
    """1 where nothing fits, or not with the context that was asked for."""
    assert run(["fit", *arguments]) == code
    assert ("Nothing fits" in capsys.readouterr().out) <= (code == 1)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--chip", "M4"], "--chip needs --memory"),
        (["--memory", "16GB", "--chip", "M99"], "no chip 'M99' is known"),
        (["--memory", "64GB", "--chip", "M4"], "M4 comes with 16, 24, 32 GB"),
        (["--memory", "lots"], "'lots' is no size such as 16GB"),
        (["--memory", "0"], "'0' is no size such as 16GB"),
        (["--memory", "16TB"], "'16TB' is no size such as 16GB"),
        (["--memory", "16", "--context", "1000000"], "1..131,072"),
        (["7b"], "'20b', '120b'"),
    ],
)
def test_mistakes(arguments: list[str], text: str, capsys: pytest.CaptureFixture[str]) -> None:
    """One line, and exit code 2."""
    assert run(["fit", *arguments]) == 2
    error = capsys.readouterr().err
    assert text in error
    assert error.count("\n") == 1


def test_the_commands_are_exact(capsys: pytest.CaptureFixture[str]) -> None:
    """They name the variant, the context if one was asked for, and serve for several at once."""
    assert run(["fit", "20b", "--memory", "16", "--context", "5000"]) == 0
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert "gptoss-mlx chat --model gpt-oss-20b-q4 --context 5000" in lines
    assert run(["fit", "20b", "--memory", "36", "--parallel", "3"]) == 0
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert "gptoss-mlx serve --model gpt-oss-20b-q8 --parallel 3" in lines
    assert run(["fit", "20b", "--memory", "16", "--context", "65536"]) == 1
    output = capsys.readouterr().out
    assert "65,536 tokens of context do not fit.\nTake the 20b: q4" in output


def test_one_chip(capsys: pytest.CaptureFixture[str]) -> None:
    """Its own speeds, and no list of others."""
    assert run(["fit", "20b", "--memory", "24", "--chip", "apple m4 pro"]) == 0
    output = capsys.readouterr().out
    assert output.startswith("an M4 Pro with 24 GB: 16.00 GiB")
    assert "26-56  <-" in output
    assert "M5 Pro" not in output


def test_this_machine(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Planned with what there is, which GPTOSS_MLX_MEMORY overrides; its chip may be unknown."""
    monkeypatch.setenv(VARIABLE, "1GiB")
    report = _report(capsys, code=1)
    assert report["machine"]["ceiling_bytes"] == 1 << 30
    assert report["recommendation"]["model"] is None
    assert VARIABLE in report["recommendation"]["reason"]


def test_help_is_quick() -> None:
    """`gptoss-mlx fit --help` imports neither mlx nor the plan."""
    script = (
        "import sys; from gptoss_mlx.cli import run; code = run(['fit', '--help']);"
        "assert not {'mlx', 'gptoss_mlx.fit'} & set(sys.modules); sys.exit(code)"
    )
    assert subprocess.run([sys.executable, "-c", script], capture_output=True).returncode == 0
