"""What `fit` says does not fit is refused before anything is loaded or converted, and no more."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import mlx.core as mx
import pytest

from gptoss_mlx import models
from gptoss_mlx.ceiling import VARIABLE
from gptoss_mlx.cli import run
from gptoss_mlx.convert import Dense
from gptoss_mlx.errors import MemoryPlanError
from gptoss_mlx.fit import MODELS, Machine, ModelName, a_mac, check_conversion, fit, this_machine
from gptoss_mlx.memory import Use

from .headers import write_converted_headers, write_source_headers
from .make_golden import FOLDER, GIGABYTES, printed

ALL_DENSE: tuple[Dense, ...] = ("bf16", "q8", "q4")


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[ModelName, Dense], Path]:
    """Every conversion of the published models, without its data."""
    folder = tmp_path_factory.mktemp("converted")
    return {
        (name, dense): write_converted_headers(folder / f"{name}-{dense}", config, dense)
        for name, config in MODELS.items()
        for dense in ALL_DENSE
    }


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """OpenAI's 20b, without its data."""
    return write_source_headers(tmp_path_factory.mktemp("original") / "20b", MODELS["20b"])


@pytest.mark.parametrize("gigabytes", GIGABYTES)
def test_golden_tables(gigabytes: int) -> None:
    """What is printed for the usual Macs is what is on file; make_golden.py records anew."""
    assert printed(gigabytes) == (FOLDER / f"{gigabytes}.txt").read_text("utf-8")


@pytest.mark.parametrize("gigabytes", GIGABYTES)
@pytest.mark.parametrize("model", MODELS)
def test_every_cell_is_what_loading_decides(
    model: ModelName,
    gigabytes: int,
    converted: dict[tuple[ModelName, Dense], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On such a Mac, `load` plans from the checkpoint's headers exactly what the table has."""
    mac = a_mac(gigabytes)
    _pretend(mac, monkeypatch)
    for row in fit(model, mac).rows:
        use = Use(embedding=row.variant.embedding, kv_bits=row.variant.kv_bits)
        plan = models.plan_for(converted[model, row.variant.dense], use=use)
        assert plan == row.plan
        assert _is_refused(plan.check) == (not row.fits)


@pytest.mark.parametrize("memory", ["12GiB", "16GiB", "100GiB"])
def test_so_is_every_cell_of_this_machine(
    memory: str,
    converted: dict[tuple[ModelName, Dense], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever MLX computes on here, `fit` and `load` plan the same."""
    monkeypatch.setenv(VARIABLE, memory)
    for row in fit("20b", this_machine()).rows:
        use = Use(embedding=row.variant.embedding, kv_bits=row.variant.kv_bits)
        assert models.plan_for(converted["20b", row.variant.dense], use=use) == row.plan


@pytest.mark.parametrize("gigabytes", [8, *GIGABYTES])
@pytest.mark.parametrize("model", MODELS)
def test_conversions_are_refused_by_the_table(model: ModelName, gigabytes: int) -> None:
    """A --dense is refused where none of its variants fits, and only there."""
    mac = a_mac(gigabytes)
    rows = fit(model, mac).rows
    for dense in ALL_DENSE:
        usable = any(row.fits for row in rows if row.variant.dense == dense)
        refused = _is_refused(partial(check_conversion, MODELS[model], dense, mac))
        assert refused == (not usable)


def _pretend(mac: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make `models` believe that it runs on this Mac."""
    monkeypatch.setattr(models, "device_ceiling", lambda: mac.ceiling)
    gpu = SimpleNamespace(default_device=lambda: "gpu", Device=str, cpu="cpu")
    gpu.bfloat16, gpu.float32 = mx.bfloat16, mx.float32
    monkeypatch.setattr(models, "mx", gpu)


def _is_refused(check: Callable[[], object]) -> bool:
    try:
        check()
    except MemoryPlanError:
        return True
    return False


@pytest.mark.parametrize("memory", ["10GiB", "12.8GiB", "14GiB"])
def test_commands_refuse_it(
    memory: str,
    converted: dict[tuple[ModelName, Dense], Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """chat, generate and serve end with one line and exit code 1 for every variant that is out."""
    monkeypatch.setenv(VARIABLE, memory)
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    out = [row.variant for row in fit("20b", this_machine()).rows if not row.fits]
    assert out
    variant = out[-1]
    folder = str(converted["20b", variant.dense])
    for command in (["chat", "Hi"], ["generate", "Hi"], ["serve", "--port", "0"]):
        place = ["--embedding", variant.embedding]
        assert run([*command, "--model", folder, *variant.options, *place]) == 1
        error = capsys.readouterr().err.splitlines()[-1]
        assert error.startswith("Error: the model needs ")
        assert VARIABLE in error


def test_convert_refuses_it(
    original: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One line that names what would fit and how to convert all the same; nothing is written."""
    monkeypatch.setenv(VARIABLE, "14GiB")
    assert run(["convert", str(original), str(tmp_path / "new"), "--dense", "bf16"]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert error.startswith("Error: converted to bf16, the model needs ")
    assert "--dense q8" in error
    assert "--elsewhere" in error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("options", [["--dense", "q8"], ["--dense", "bf16", "--elsewhere"]])
def test_convert_goes_on(
    options: list[str],
    original: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """With a format that fits, or for another machine, it goes on to the next check."""
    monkeypatch.setenv(VARIABLE, "14GiB")
    arguments = ["convert", str(original), str(original), *options]
    assert run(arguments) == 2
    assert "overlap; write the conversion elsewhere" in capsys.readouterr().err
