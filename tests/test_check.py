"""Kernels are tried before they are trusted: broken on purpose, on a CPU that plays the GPU."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread

import metal_host
import mlx.core as mx
import numpy as np
import pytest
from helpers import array, write_converted

import gptoss_mlx
from gptoss_mlx.cli import run
from gptoss_mlx.errors import UsageError
from gptoss_mlx.kernels import build, check, choice, metal, plain
from gptoss_mlx.kernels.cases import Call, Widths
from gptoss_mlx.kernels.check import Plan, Sizes
from gptoss_mlx.kernels.choice import Trial, fastest
from gptoss_mlx.kernels.types import Matrix, Routing

GPU = "Test GPU"
SIZES = {
    "attention": Sizes((1, 77, 600), (16,)),
    "moe": Sizes((1, 3), (1, 2)),
    "moe_gemm": Sizes((5, 20), (2, 4)),
    "q": Sizes((2,), (1, 2)),
    "router": Sizes((3,), (1,)),
}
SMALL = Plan(SIZES, (mx.float32,), rounds=1, seconds=0, widths=Widths(64, 64, 8, 1, 8, 64))
BROKEN = "moe_down_combine"
IDS = [[7, 250, 0, 31, 31]]
HARM = {
    "wrong": "out[token * H] = T(3);",
    "not a number": "out[token * H] = T(NAN);",
    "does not compile": "this is no Metal;",
}


Clock = Callable[[list[Call], Plan], tuple[float, float]]


@pytest.fixture
def clock() -> Clock:
    """What really times the kernels."""
    return getattr(check, "_times")  # noqa: B009  private to others


@pytest.fixture(autouse=True)
def gpu(clock: Clock, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A machine with a GPU on which nothing was tried, where every kernel beats MLX twice over."""
    del clock  # that fixture comes first
    if not metal_host.available():
        pytest.skip("needs g++ >= 12 or clang++")
    monkeypatch.setattr(mx.fast, "metal_kernel", metal_host.metal_kernel)
    monkeypatch.setattr(choice, "device", lambda: GPU)
    monkeypatch.setattr(choice, "cache_folder", lambda: tmp_path)
    monkeypatch.setattr(check, "QUICK", SMALL)
    monkeypatch.setattr(check, "_times", _twice_as_fast)
    monkeypatch.delenv(choice.VARIABLE, raising=False)
    _forget()
    yield
    _forget()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small converted checkpoint, with dense matrices that the kernels read."""
    return write_converted(tmp_path_factory.mktemp("model"), "q8")


def _twice_as_fast(*_: object) -> tuple[float, float]:
    return 1.0, 2.0


def _forget() -> None:
    choice.forget()
    getattr(build, "_built").cache_clear()  # noqa: B009  private to others


def harm(kernel: str, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Add a line to the end of a kernel's body."""
    original = build.kernel_text

    def text(name: str) -> build.KernelText:
        header, body = original(name)
        return build.KernelText(header, body + line * (name == kernel))

    monkeypatch.setattr(build, "kernel_text", text)


def answer(folder: Path) -> list[float]:
    """The last logits of a prompt and of one token more: many tokens at once, then one."""
    model = gptoss_mlx.load(folder, dtype=mx.float32)
    cache = model.new_cache()
    logits = [model(mx.array(ids), cache)[0, -1] for ids in (IDS, [[5]])]
    return [*array(logits[0]), *array(logits[1])]


def plain_answer(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The same without kernels."""
    with monkeypatch.context() as context:
        context.setenv(choice.VARIABLE, "off")
        return answer(folder)


def kernels_on() -> list[str]:
    """Those that serve for one token, or two."""
    return [name for name in choice.CHOICES if fastest((name,), 1) or fastest((name,), 2)]


@pytest.mark.parametrize("dtype", [mx.bfloat16, mx.float32])
@pytest.mark.parametrize("name", choice.CHOICES)
def test_every_kernel_is_right(name: str, dtype: mx.Dtype) -> None:
    """The shipped kernels pass their trials, which give an error and a time for each size."""
    trial = check.try_kernel(name, Plan(SIZES, (dtype,), widths=SMALL.widths))
    assert trial.problem is None
    assert trial.error is not None
    assert 0 <= trial.error <= {mx.bfloat16: 5e-3, mx.float32: 1e-5}[dtype]
    assert [row[0] for row in trial.times] == list(SMALL.sizes_of(name).timed)


@pytest.mark.parametrize("how", HARM)
def test_broken_kernels_are_caught_at_load(
    how: str, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A broken kernel is off from the first load on, with one line; the others serve."""
    expected = plain_answer(folder, monkeypatch)
    harm(BROKEN, HARM[how], monkeypatch)
    with metal_host.running() as launches:
        logits = answer(folder)
    np.testing.assert_allclose(logits, expected, rtol=1e-3, atol=1e-4)
    assert kernels_on() == [name for name in choice.CHOICES if name != BROKEN]
    [line] = caplog.messages
    assert line.startswith(f"kernel {BROKEN} is off: it")
    assert "\n" not in line
    assert (f"result is {how}" in line) or (how in line) or ("error:" in line)
    assert {"gptoss_moe_gate_up_swiglu", "gptoss_qmv_affine"} <= {x.name for x in launches}


def _slow(y: mx.array, routing: Routing, down: Matrix, bias: mx.array, x: mx.array) -> mx.array:
    work = mx.ones((256, 256))
    for _ in range(20):
        work = mx.tanh(work @ work)
    return plain.moe_down_combine(y, routing, down, bias, x) + 0 * work[0, 0]


def test_a_slower_kernel_is_caught_at_load(
    clock: Clock, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A right but slow kernel is found by the clock, and is off with one line; it would serve."""
    expected = plain_answer(folder, monkeypatch)
    monkeypatch.setattr(metal, BROKEN, _slow)

    def times(calls: list[Call], plan: Plan) -> tuple[float, float]:
        return clock(calls, plan) if calls[0].kernel is _slow else _twice_as_fast()

    monkeypatch.setattr(check, "_times", times)
    np.testing.assert_allclose(answer(folder), expected, rtol=1e-3, atol=1e-4)
    assert caplog.messages == [f"kernel {BROKEN} is off: MLX is faster at every size tried"]
    assert kernels_on() == [name for name in choice.CHOICES if name != BROKEN]


def test_a_wrong_kernel_would_be_noticed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The harm that the trials prevent: forced on, the wrong kernel gives another answer."""
    expected = plain_answer(folder, monkeypatch)
    harm(BROKEN, HARM["wrong"], monkeypatch)
    monkeypatch.setenv(choice.VARIABLE, BROKEN)
    assert np.abs(np.subtract(answer(folder), expected)).max() > 0.01


def test_the_second_load_tries_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What one process has found the next one knows, and says no more."""
    harm(BROKEN, HARM["wrong"], monkeypatch)
    check.ensure()
    caplog.clear()
    choice.forget()
    monkeypatch.setattr(check, "try_kernel", _fail)
    gptoss_mlx.load(folder)
    assert caplog.messages == []
    assert BROKEN not in kernels_on()


def _fail(*_: object) -> Trial:
    raise AssertionError("tried again")


@pytest.mark.parametrize(("here", "setting"), [(GPU, "off"), (None, "auto"), (None, "all")])
def test_nothing_is_tried_where_nothing_serves(
    here: str | None, setting: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No trial without a GPU, nor where the user has switched kernels off."""
    monkeypatch.setattr(choice, "device", lambda: here)
    monkeypatch.setenv(choice.VARIABLE, setting)
    monkeypatch.setattr(check, "try_kernel", _fail)
    check.ensure()


def test_only_named_kernels_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """So a kernel whose trial does harm can be kept from it by naming the others."""
    monkeypatch.setenv(choice.VARIABLE, "router,qmv")
    monkeypatch.setattr(check, "try_kernel", _good)
    check.ensure()
    assert list(choice.trials(GPU)) == ["qmv_bf16", "qmv_q4", "qmv_q8", "router_topk"]


def test_a_forced_kernel_that_does_not_compile(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """MLX serves in its place, and one line says so."""
    expected = plain_answer(folder, monkeypatch)
    harm(BROKEN, HARM["does not compile"], monkeypatch)
    monkeypatch.setenv(choice.VARIABLE, "moe")
    np.testing.assert_allclose(answer(folder), expected, rtol=1e-3, atol=1e-4)
    [line] = caplog.messages
    assert line.startswith(f"kernel {BROKEN} is off: it does not run here: ")
    assert "error:" in line


def test_a_forced_kernel_that_is_wrong(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It serves, as the user wants, who is told."""
    harm(BROKEN, HARM["wrong"], monkeypatch)
    monkeypatch.setenv(choice.VARIABLE, BROKEN)
    check.ensure()
    [line] = caplog.messages
    assert f"{BROKEN} is on because GPTOSS_MLX_KERNELS says so, but its result is wrong" in line
    assert kernels_on() == [BROKEN]


def test_an_unwritable_cache_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """The trials are made once a process, and serve."""

    def refuse() -> Path:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(choice, "cache_folder", refuse)
    check.ensure()
    monkeypatch.setattr(check, "try_kernel", _fail)
    check.ensure()
    assert kernels_on() == list(choice.CHOICES)


DIES = """
import os, sys
from pathlib import Path
from threading import Thread
from gptoss_mlx.kernels import check, choice
choice.device = lambda: "Test GPU"
choice.trials_file = lambda _: Path(sys.argv[1])
def trial(name, plan):
    if name == "moe_gemm_down":
        os._exit(7)
    return choice.Trial(name, 0.0, ((1, 1.0, 2.0), (2, 1.0, 2.0)))
check.try_kernel = trial
check.ensure()
"""


def test_a_kernel_that_ends_the_program(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is tried once more; the start after that does not, says so, and tries the rest."""
    command = [sys.executable, "-c", DIES, str(choice.trials_file(GPU))]
    assert [subprocess.run(command, env=os.environ).returncode for _ in range(2)] == [7, 7]
    monkeypatch.setattr(check, "try_kernel", _good)
    check.ensure()
    [line] = caplog.messages
    assert line.startswith("kernel moe_gemm_down is off: the program ended while it was tried")
    assert kernels_on() == [name for name in choice.CHOICES if name != "moe_gemm_down"]


def test_a_program_that_was_ended_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A closed window is no fault of the kernel that was being tried: it gets a second trial."""
    command = [sys.executable, "-c", DIES, str(choice.trials_file(GPU))]
    assert subprocess.run(command, env=os.environ).returncode == 7
    monkeypatch.setattr(check, "try_kernel", _good)
    check.ensure()
    assert kernels_on() == list(choice.CHOICES)


WAITS = """
import sys
from pathlib import Path
from threading import Thread
from gptoss_mlx.kernels import check, choice
choice.device = lambda: "Test GPU"
choice.trials_file = lambda _: Path(sys.argv[1])
def trial(name, plan):
    print("trying", flush=True)
    sys.stdin.readline()
    return choice.Trial(name, 0.0, ((1, 1.0, 2.0), (2, 1.0, 2.0)))
check.try_kernel = trial
check.ensure()
"""


def test_two_first_loads_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second waits for the first, and then has nothing to try."""
    command = [sys.executable, "-c", WAITS, str(choice.trials_file(GPU))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as first:
        assert first.stdin is not None
        assert first.stdout is not None
        first.stdout.readline()
        monkeypatch.setattr(check, "try_kernel", _fail)
        waiting = Thread(target=check.ensure)
        waiting.start()
        first.stdin.write(b"\n" * len(choice.CHOICES))
        first.stdin.close()
        waiting.join(60)
    assert not waiting.is_alive()
    assert kernels_on() == list(choice.CHOICES)


def test_kernels_that_fail_in_the_model(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Trials went well, but not with the model's sizes: one line, and the answer is right."""
    expected = plain_answer(folder, monkeypatch)
    for name in choice.CHOICES:
        choice.record(GPU, _good(name))
    harm(BROKEN, HARM["does not compile"], monkeypatch)
    assert answer(folder) == expected
    [line] = caplog.messages
    assert line.startswith("all kernels are off for this model: ")


def test_forced_kernels_without_a_gpu(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no Metal, one line says so instead of an answer."""
    monkeypatch.undo()
    monkeypatch.setenv(choice.VARIABLE, "qmv")
    with pytest.raises(UsageError, match=r"none runs here.*Metal"):
        gptoss_mlx.load(folder)


def _good(name: str, *_: object) -> Trial:
    return Trial(name, 0.0, ((1, 1.0, 2.0), (2, 1.0, 2.0)))


def test_an_interrupted_trial_is_no_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C during the trials leaves nothing behind: the next load makes them."""

    def interrupt(*_: object) -> Trial:
        assert choice.read_trials(choice.trials_file(GPU))[0].raised  # word for the worst case
        raise KeyboardInterrupt

    with monkeypatch.context() as context:
        context.setattr(check, "try_kernel", interrupt)
        with pytest.raises(KeyboardInterrupt):
            check.ensure()
    assert choice.read_trials(choice.trials_file(GPU)) == []
    assert choice.trials(GPU) == {}


def test_trials_leave_random_draws_alone() -> None:
    """Whoever samples draws the same, tried or not."""
    mx.random.seed(1)
    expected = mx.random.uniform(shape=(4,)).tolist()
    mx.random.seed(1)
    check.try_kernel("router_topk", SMALL)
    assert mx.random.uniform(shape=(4,)).tolist() == expected


def _slower(name: str, *_: object) -> Trial:
    return Trial(name, 0.0, ((1, 2.0, 1.0),))


def test_the_command_line_says_it_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A line on stderr at the first answer, none at the next, and the answers as ever."""
    for name in choice.CHOICES[:-1]:
        choice.record(GPU, _slower(name))
    monkeypatch.setattr(check, "try_kernel", _slower)
    monkeypatch.setattr(sys, "stdin", None)
    line = "Note: kernel router_topk is off: MLX is faster at every size tried\n"
    for expected in (line, ""):
        assert run(["generate", "-m", "demo", "--temperature", "0", "What is 2 + 2?"]) == 0
        output = capsys.readouterr()
        assert "4" in output.out
        assert output.err == expected


def test_an_unknown_kernel_is_a_usage_error(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On any machine, with a GPU or without."""
    monkeypatch.setattr(choice, "device", lambda: None)
    monkeypatch.setenv(choice.VARIABLE, "qvm")
    monkeypatch.setattr(sys, "stdin", None)
    assert run(["generate", "--model", str(folder), "Hello"]) == 2
    assert capsys.readouterr().err.startswith("Error: GPTOSS_MLX_KERNELS: 'qvm' is no kernel")
