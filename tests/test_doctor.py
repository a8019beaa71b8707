"""`gptoss-mlx doctor` and the kernels: what it finds, how it shows it, and its exit code."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import metal_host
import mlx.core as mx
import pytest
from test_check import HARM, SMALL, harm

from gptoss_mlx.cli import run
from gptoss_mlx.kernels import build, check, choice
from gptoss_mlx.kernels.choice import Trial

GPU = "Test GPU"


def _trial(name: str) -> Trial:
    times = {
        "qmv_q4": ((1, 2e-3, 1e-3), (4, 1e-3, 2e-3)),
        "qmv_q8": ((1, 2e-3, 1e-3), (4, 4e-3, 2e-3)),
    }
    return Trial(name, 0.0012, times.get(name, ((1, 0.5e-3, 1e-3), (4, 1e-3, 2e-3))))


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A machine with a GPU, on which all trials go well but for the times of two kernels."""

    def try_kernel(name: str, *_: object) -> Trial:
        return _trial(name)

    monkeypatch.setattr(choice, "device", lambda: GPU)
    monkeypatch.setattr(choice, "cache_folder", lambda: tmp_path)
    monkeypatch.setattr(check, "try_kernel", try_kernel)
    monkeypatch.delenv(choice.VARIABLE, raising=False)
    monkeypatch.setenv("COLUMNS", "100")
    choice.forget()
    yield
    choice.forget()


def report(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """What was printed as JSON, alone."""
    output = capsys.readouterr()
    assert output.err == ""
    return json.loads(output.out)


def test_without_metal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """One line at the end that no kernel is used and why; all is well."""
    monkeypatch.setattr(choice, "device", lambda: None)
    monkeypatch.delitem(sys.modules, "mlx_lm", raising=False)
    assert run(["doctor"]) == 0
    level, name, text = capsys.readouterr().out.splitlines()[-1].split(maxsplit=2)
    assert (level, name) == ("ok", "kernels:")
    assert "not used" in text
    assert "Metal" in text
    assert "mlx_lm" not in sys.modules


def test_forced_kernels_without_metal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The setting would break every answer: that is not well, and the remedy is said."""
    monkeypatch.setattr(choice, "device", lambda: None)
    monkeypatch.setenv(choice.VARIABLE, "qmv")
    assert run(["doctor"]) == 1
    assert f"unset {choice.VARIABLE}" in capsys.readouterr().out


def test_json_without_metal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same as one JSON object."""
    monkeypatch.setattr(choice, "device", lambda: None)
    assert run(["doctor", "--json"]) == 0
    found = report(capsys)
    assert found["ok"] is True
    assert [f["name"] for f in found["findings"]][-1] == "kernels"
    assert all(f["level"] in ("ok", "warning") and f["text"] for f in found["findings"])


@pytest.mark.usefixtures("gpu")
def test_table(capsys: pytest.CaptureFixture[str]) -> None:
    """A row a kernel: error, a time for each size, and whether it serves."""
    assert run(["doctor"]) == 0
    text = capsys.readouterr().out
    assert f"ok       device:       {GPU}\n" in text
    assert "11 of 12 on" in text
    rows = {name: text[text.index(f" {name} ") :].splitlines()[:2] for name in choice.CHOICES}
    first, second = rows["router_topk"]
    assert " ".join(first.split()) == "router_topk 1.2e-03 1: 0.500 / 1.000 = 0.50 on"
    assert " ".join(second.split()) == "4: 1.000 / 2.000 = 0.50"
    assert "on at 4: elsewhere MLX is faster" in rows["qmv_q4"][0]
    assert "off: MLX is faster at every" in rows["qmv_q8"][0]


@pytest.mark.usefixtures("gpu")
def test_it_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the doctor found serves from then on, in place of what was known before."""
    choice.record(GPU, Trial("router_topk", problem="it does not run here", raised=True))
    monkeypatch.setenv(choice.VARIABLE, "off")  # which keeps nobody from looking
    assert run(["doctor"]) == 0
    monkeypatch.delenv(choice.VARIABLE)
    choice.forget()
    assert choice.fastest(("router_topk",), 1) == "router_topk"
    assert choice.fastest(("qmv_q8",), 1) is None


@pytest.mark.usefixtures("gpu")
def test_an_overriding_setting_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where the user's setting decides, the summary says so."""
    monkeypatch.setenv(choice.VARIABLE, "off")
    assert run(["doctor", "--json"]) == 0
    assert "GPTOSS_MLX_KERNELS=off overrides" in report(capsys)["findings"][-1]["text"]


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize(("error", "raised"), [(0.3, False), (None, False), (None, True)])
def test_a_broken_kernel_is_exit_code_1(
    error: float | None,
    raised: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Wrong or not running: the summary and the verdict say it, the exit code too."""

    def try_kernel(name: str, *_: object) -> Trial:
        broken = Trial(name, error, (), "it is [b]broken[/b]", raised)
        return broken if name == "qkv_q8" else _trial(name)

    monkeypatch.setattr(check, "try_kernel", try_kernel)
    assert run(["doctor"]) == 1
    text = capsys.readouterr().out
    assert "10 of 12 on; broken: qkv_q8" in text
    assert "off: it is [b]broken[/b]" in text
    assert run(["doctor", "--json"]) == 1
    found = report(capsys)
    assert found["ok"] is False
    kernel = next(k for k in found["findings"][-1]["kernels"] if k["name"] == "qkv_q8")
    assert kernel == {
        "name": "qkv_q8",
        "error": error,
        "times": [],
        "on": False,
        "verdict": "off: it is [b]broken[/b]",
    }


@pytest.mark.parametrize("how", HARM)
def test_a_real_trial(
    how: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The kernels' own text, one of them broken on purpose, on a CPU that plays the GPU."""
    if not metal_host.available():
        pytest.skip("needs g++ >= 12 or clang++")
    monkeypatch.setattr(mx.fast, "metal_kernel", metal_host.metal_kernel)
    monkeypatch.setattr(choice, "device", lambda: GPU)
    monkeypatch.setattr(choice, "cache_folder", lambda: tmp_path)
    monkeypatch.setattr(check, "try_all", partial(check.try_all, plan=SMALL))
    choice.forget()
    built = getattr(build, "_built")  # noqa: B009  private to others
    built.cache_clear()
    harm("router_topk", HARM[how].replace("out[token * H] = T", "scores[0] = "), monkeypatch)
    assert run(["doctor", "--json"]) == 1
    finding = report(capsys)["findings"][-1]
    built.cache_clear()
    choice.forget()
    assert "broken: router_topk (" in finding["text"]
    kernels = {kernel["name"]: kernel for kernel in finding["kernels"]}
    assert kernels["router_topk"]["verdict"].startswith("off: it")
    assert all(k["error"] < 1e-5 for name, k in kernels.items() if name != "router_topk")
