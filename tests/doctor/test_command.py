"""`gptoss-mlx doctor` on a healthy machine, and on one ill in each way: lines and exit codes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from gptoss_mlx import doctor, hub, library
from gptoss_mlx.ceiling import VARIABLE
from gptoss_mlx.cli import run
from gptoss_mlx.convert import convert
from gptoss_mlx.errors import HubError
from gptoss_mlx.kernels import check, choice
from gptoss_mlx.kernels.choice import Trial
from gptoss_mlx.tools import python

from .disks import disk_with

pytestmark = pytest.mark.usefixtures("no_tokenizer", "healthy")
NAMES = [
    *("system", "Python", "gptoss-mlx", "mlx", "mlx-lm", "packages", "device", "memory", "fit"),
    *("data", "downloads", "cache", "model tiny-q8", "vocabulary", "sandbox", "port", "variables"),
    "kernels",
]

WITHOUT_MLX = """
import sys

class Missing:
    def find_spec(self, name, *_):
        if name.partition(".")[0] == "mlx":
            raise ModuleNotFoundError("No module named 'mlx'")

sys.meta_path.insert(0, Missing())
from gptoss_mlx.cli import run
sys.exit(run(["doctor"]))
"""


@pytest.fixture
def healthy(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine on which all is well, with one installed model, whose folder this is."""
    monkeypatch.setenv("GPTOSS_MLX_DATA", str(tmp_path))
    monkeypatch.setenv(VARIABLE, "20GiB")
    monkeypatch.delenv(choice.VARIABLE, raising=False)
    monkeypatch.setattr(shutil, "disk_usage", disk_with(10**12))
    monkeypatch.setattr(python, "sandbox_problem", lambda: None)
    monkeypatch.setattr(doctor, "check_port", partial(doctor.check_port, 0))
    folder = library.folder_of("tiny-q8")
    folder.parent.mkdir()
    convert(source, folder)
    return folder


def _levels(output: str) -> dict[str, str]:
    """What is said of each thing, by its name: the worst."""
    lines = [line.split(maxsplit=1) for line in output.splitlines()]
    found: dict[str, str] = {}
    for level, rest in lines:
        name = rest.partition(":")[0]
        found[name] = max(found.get(name, "ok"), level, key=["ok", "warning", "problem"].index)
    return found


@pytest.mark.parametrize("options", [[], ["--deep"]])
def test_a_healthy_machine(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """A line each, all ok, exit code 0; nothing on stderr."""
    assert run(["doctor", *options]) == 0
    output = capsys.readouterr()
    assert [
        line.split(maxsplit=1)[1].partition(":")[0] for line in output.out.splitlines()
    ] == NAMES
    assert set(_levels(output.out).values()) == {"ok"}
    assert output.err == ""


def _break_checkpoint(folder: Path, _: pytest.MonkeyPatch) -> None:
    (path,) = folder.glob("*.safetensors")
    path.write_bytes(path.read_bytes()[:-1000])


def _fill_disk(_: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", disk_with(10**7))


def _remove_sandbox(_: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(python, "sandbox_problem", lambda: "bubblewrap is not installed: do so")


def _break_kernels(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def try_kernel(name: str, *_: object) -> Trial:
        return Trial(name, problem="its result is wrong here: not a number")

    monkeypatch.setattr(choice, "device", lambda: "Test GPU")
    monkeypatch.setattr(choice, "cache_folder", lambda: folder)
    monkeypatch.setattr(check, "try_kernel", try_kernel)


def _take_memory(_: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "2GiB")


def _misspell(_: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPTOSS_MLX_MEMROY", "2GiB")


ILLS: dict[str, tuple[Callable[[Path, pytest.MonkeyPatch], None], dict[str, str], str]] = {
    "checkpoint": (
        _break_checkpoint,
        {"model tiny-q8": "problem"},
        "truncated or damaged",
    ),
    "disk": (
        _fill_disk,
        dict.fromkeys(["data", "downloads", "cache"], "problem"),
        "0.0 GB free, the disk is full: make room",
    ),
    "sandbox": (_remove_sandbox, {"sandbox": "warning"}, "bubblewrap is not installed: do so"),
    "kernels": (_break_kernels, {"kernels": "problem"}, "0 of 12 on; broken: attention_decode"),
    "memory": (_take_memory, {"fit": "warning"}, "there are 2.00 GiB (GPTOSS_MLX_MEMORY)"),
    "variable": (_misspell, {"variables": "warning"}, "did you mean GPTOSS_MLX_MEMORY?"),
}


@pytest.mark.parametrize("ill", ILLS)
def test_what_is_not_well(
    ill: str,
    healthy: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """That line says so with the remedy, all others are as before; a problem is exit code 1."""
    make, expected, text = ILLS[ill]
    make(healthy, monkeypatch)
    is_problem = "problem" in expected.values()
    choice.forget()
    assert run(["doctor", "--json"]) == is_problem
    report: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert report["ok"] == (not is_problem)
    found = [(f["name"], f["level"]) for f in report["findings"] if f["level"] != "ok"]
    assert dict(found) == expected
    assert run(["doctor"]) == is_problem
    choice.forget()
    output = capsys.readouterr().out
    assert text in output
    lines = [line for line in output.splitlines() if line.startswith(("warning", "problem"))]
    assert _levels("\n".join(lines)) == expected


def test_the_hub_only_if_asked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without --online nothing goes over the network."""

    def refuse(_: object) -> None:
        raise HubError("https://hub cannot be reached: check the network")

    monkeypatch.setattr(hub, "reach", refuse)
    assert run(["doctor"]) == 0
    assert "Hub" not in _levels(capsys.readouterr().out)
    assert run(["doctor", "--online"]) == 1
    output = capsys.readouterr().out
    assert _levels(output)["Hub"] == "problem"
    assert "check the network" in output


def test_a_wrong_setting_of_kernels(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A kernel that does not exist is a problem, and not the end of the report."""
    monkeypatch.setenv(choice.VARIABLE, "warp")
    assert run(["doctor"]) == 1
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("problem  kernels: ")
    assert "warp" in last


def test_a_broken_installation() -> None:
    """Where MLX cannot even be imported, everything that does without is looked at."""
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_MLX], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1, done.stderr
    levels = _levels(done.stdout)
    problems = {name for name, level in levels.items() if level == "problem"}
    assert problems == {"device", "memory", "models", "kernels"}
    assert "No module named 'mlx': install gptoss-mlx anew" in done.stdout
    assert {"system", "packages", "data", "vocabulary", "sandbox"} < levels.keys()
