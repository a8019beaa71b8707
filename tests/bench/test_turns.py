"""Both sides in processes of their own, on the demo; and processes that come to a bad end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import mlx.core as mx
import pytest

import gptoss_mlx
from gptoss_mlx.bench import child, turns
from gptoss_mlx.bench.events import Doing, Event, Failure, Loaded, Reading, from_line, to_line
from gptoss_mlx.bench.sides import SIDES, SideName
from gptoss_mlx.bench.turns import Turn, in_turns, run_child
from gptoss_mlx.bench.workload import Workload
from gptoss_mlx.convert import convert
from gptoss_mlx.models import resolve

from .made_up import processes


def _workload(folder: Path | str) -> Workload:
    return Workload(str(folder), 257, (8, 24), (1, 3), 4)


@pytest.fixture(scope="module")
def told() -> list[Turn]:
    """A round of both sides."""
    return list(in_turns(_workload(resolve("demo")), SIDES, 1))


def _readings(told: list[Turn], side: SideName) -> list[Reading]:
    return [t.event for t in told if t.side == side and isinstance(t.event, Reading)]


def test_each_side_has_its_turn(told: list[Turn]) -> None:
    """One after the other; each loads, warms up, and measures everything once."""
    order = [turn.side for turn in told]
    assert order == sorted(order)
    for side in SIDES:
        events = [turn.event for turn in told if turn.side == side]
        assert [event.text for event in events if isinstance(event, Doing)] == [
            *("loading", "warming up", "context 8", "context 24", "batch 1", "batch 3"),
        ]
        measured = [(reading.kind, reading.size) for reading in _readings(told, side)]
        assert measured == [("context", 8), ("context", 24), ("batch", 1), ("batch", 3)]
        [loaded] = [event for event in events if isinstance(event, Loaded)]
        assert loaded.dtype == "float32"
        assert 25e6 < loaded.nbytes < 40e6


def test_both_do_the_same_work(told: list[Turn]) -> None:
    """They decode the same ids, as many as they were asked for, and the next turn's first."""
    ours, theirs = (_readings(told, side) for side in SIDES)
    assert [len(reading.ids) for reading in ours] == [5, 5, 4, 12]
    assert [reading.ids for reading in ours] == [reading.ids for reading in theirs]


def test_what_is_cached_and_what_is_not(told: list[Turn]) -> None:
    """The next turn computes what is new: ours also the last id, which was drawn but never read."""
    ours, theirs = (_readings(told, side)[:2] for side in SIDES)
    assert [reading.cached for reading in ours] == [8 + 3, 24 + 3]
    assert [reading.cached for reading in theirs] == [8 + 4, 24 + 4]


def test_figures_are_plausible(told: list[Turn]) -> None:
    """Times and rates above 0; memory at least that of the weights, and not far above."""
    for side in SIDES:
        readings = _readings(told, side)
        assert all(reading.decode for reading in readings)
        assert all(reading.cold and reading.warm for reading in readings[:2])
        assert all(25e6 < reading.peak < 1e8 for reading in readings)
        assert all(5e7 < reading.rss < 1e9 for reading in readings)


def test_events_are_lines() -> None:
    """What a process tells arrives as it was."""
    events: list[Event] = [
        Doing("context 8"),
        Loaded("float32", "all kernels", 1.5, 1000),
        Reading("context", 8, 2.5, 10, 20, 0.5, 0.25, 11, (1, 2, 3)),
        Reading("batch", 3, None, 10, 20),
        Failure("no\nluck", "details"),
    ]
    lines = [to_line(event) for event in events]
    assert not any("\n" in line for line in lines)
    assert [from_line(line) for line in lines] == events


def test_one_that_is_killed() -> None:
    """As by a system that runs out of memory: one line with a remedy, at once."""
    events = run_child("gptoss-mlx", _workload(resolve("demo")))
    assert next(events) == Doing("loading")
    [process] = processes()
    process.kill()
    failure = list(events)[-1]
    assert isinstance(failure, Failure)
    assert failure.text.startswith("its process was killed, as happens when memory runs out: ")


def test_an_error_of_ours(tmp_path: Path) -> None:
    """Its own text; nothing else was measured, and the other side has no turn."""
    told = list(in_turns(_workload(tmp_path / "nowhere"), SIDES, 2))
    assert [turn.side for turn in told] == ["gptoss-mlx"] * 2
    failure = told[-1].event
    assert isinstance(failure, Failure)
    assert "no such folder" in failure.text


def test_a_checkpoint_that_mlx_lm_does_not_take(tmp_path: Path) -> None:
    """The last line that its process printed, and all of it as details."""
    (tmp_path / "config.json").write_text('{"model_type": "unheard_of"}')
    failure = list(run_child("mlx-lm", _workload(tmp_path)))[-1]
    assert isinstance(failure, Failure)
    assert "\n" not in failure.text
    assert "No safetensors found" in failure.text
    assert failure.details.startswith("Traceback")


def test_the_other_side_goes_on_without_mlx_lm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where mlx-lm fails it is left out from then on."""

    def run(side: SideName, _: Workload) -> list[Event]:
        return [Doing("loading"), *([Failure("no")] * (side == "mlx-lm"))]

    monkeypatch.setattr(turns, "run_child", run)
    sides = [
        (t.round, t.side) for t in in_turns(_workload(""), SIDES, 3) if t.event != Failure("no")
    ]
    assert sides == [(0, "gptoss-mlx"), (0, "mlx-lm"), (1, "gptoss-mlx"), (2, "gptoss-mlx")]


@pytest.mark.usefixtures("no_tokenizer")
def test_a_broken_checkpoint_is_said(source: Path, tmp_path: Path) -> None:
    """One whose logits are not numbers is not measured."""
    convert(source, tmp_path / "mlx")
    [path] = (tmp_path / "mlx").glob("*.safetensors")
    arrays = mx.load(str(path))
    assert isinstance(arrays, dict)
    arrays["model.norm.weight"] *= float("nan")
    mx.save_safetensors(str(path), arrays)
    *_, doing, failure = run_child("gptoss-mlx", _workload(tmp_path / "mlx"))
    assert doing == Doing("warming up")
    assert isinstance(failure, Failure)
    assert failure.text.startswith("the model's logits are not numbers: ")


def test_it_ends_with_its_parent() -> None:
    """When nobody holds its stdin any more the process ends, whatever it does."""
    command = [sys.executable, "-m", "gptoss_mlx.bench.child", "gptoss-mlx"]
    workload = Workload(str(resolve("demo")), 257, (8,), (), 100_000)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        process.stdin.write(f"{workload.to_json()}\n".encode())
        process.stdin.close()
        assert process.wait(timeout=30) == 1
        assert process.stdout is not None
        assert b"Failure" not in process.stdout.read()


def test_an_iterator_that_is_left_ends_the_process() -> None:
    """Nothing runs on when nobody listens."""
    events = in_turns(_workload(resolve("demo")), SIDES, 1)
    next(events)
    [process] = processes()
    events.close()
    assert not process.is_running()


def test_mlx_lm_runs_with_the_limits_of_mlx(monkeypatch: pytest.MonkeyPatch) -> None:
    """What this package sets for itself is not set for it; what the user has set is."""
    operations, megabytes = gptoss_mlx.BUFFER_LIMITS
    monkeypatch.setenv(operations, gptoss_mlx.BUFFER_LIMITS[operations])
    monkeypatch.setenv(megabytes, "77")
    child.restore_limits()
    assert operations not in os.environ
    assert os.environ[megabytes] == "77"


def test_a_signal_is_named() -> None:
    """Of a process that dies of another one."""
    events = run_child("gptoss-mlx", _workload(resolve("demo")))
    next(events)
    [process] = processes()
    process.send_signal(signal.SIGABRT)
    failure = list(events)[-1]
    assert isinstance(failure, Failure)
    assert failure.text.startswith("its process died of signal 6")
