"""Disks, installed models in every state, and the vocabulary."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from checkpoints import TINY, Damage, cut, edit_header, json_edit, removal, replacement
from fit.headers import write_converted_headers

from gptoss_mlx import library, vocabulary
from gptoss_mlx.ceiling import VARIABLE
from gptoss_mlx.convert import convert
from gptoss_mlx.convert.published import GPT_OSS_20B
from gptoss_mlx.convert.reader import find_files, read_header
from gptoss_mlx.convert.synthetic import write_random_checkpoint
from gptoss_mlx.doctor import Finding, check_disks, check_models, check_vocabulary, examine
from gptoss_mlx.errors import VocabularyError

from .disks import disk_with

pytestmark = pytest.mark.usefixtures("no_tokenizer", "data")
ONE = "model-00001-of-00001.safetensors"


@pytest.fixture
def data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty data folder."""
    monkeypatch.setenv("GPTOSS_MLX_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


@pytest.fixture
def installed(source: Path, data: Path) -> Path:
    """One installed model, a conversion."""
    folder = library.folder_of("tiny-q8")
    folder.parent.mkdir(parents=True)
    convert(source, folder)
    assert folder.is_relative_to(data)
    return folder


def _models(*, deep: bool = False) -> list[Finding]:
    return list(check_models(deep=deep, on_progress=lambda _: None))


def test_nothing_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """What to do is said, if it fits into memory; and that the disk is too small, if it is."""
    monkeypatch.setenv(VARIABLE, "100MiB")
    (finding,) = _models()
    assert (finding.level, finding.text) == ("ok", "none is installed")
    monkeypatch.setenv(VARIABLE, "20GiB")
    monkeypatch.setattr(shutil, "disk_usage", disk_with(100 * 10**9))
    (finding,) = _models()
    assert finding.text == "none is installed: gptoss-mlx download 20b --convert"
    monkeypatch.setattr(shutil, "disk_usage", disk_with(20 * 10**9))
    (finding,) = _models()
    assert finding.level == "warning"
    assert "13.8 GB for the download, 12.1 GB for the conversion, and 20.0 GB free" in finding.text


@pytest.mark.parametrize("deep", [False, True])
def test_a_whole_model(installed: Path, deep: bool) -> None:
    """Its variant, its size, and how closely it was looked at."""
    told: list[str | None] = []
    (finding,) = check_models(deep=deep, on_progress=told.append)
    assert (finding.name, finding.level) == (f"model {installed.name}", "ok")
    assert finding.text.startswith("q8, 0.0 GB, ")
    assert ("all bytes as they were written" in finding.text) == deep
    assert told[-1] is None
    assert told[0] == ("Reading tiny-q8" if deep else None)


def _drop_a_tensor(folder: Path) -> None:
    """As a file that was written by something else."""
    edit_header(folder / ONE, lambda header: header.pop("model.layers.1.self_attn.sinks"))


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (cut(ONE, -1), "truncated or damaged"),
        (cut(ONE, 100), "truncated or damaged"),
        (removal(ONE), "no *.safetensors file"),
        (removal("config.json"), "config.json"),
        (replacement("config.json", b"{"), "config.json"),
        (json_edit("config.json", num_hidden_layers=None), "num_hidden_layers"),
        (json_edit("config.json", num_hidden_layers=3, layer_types=None), "tensor model.layers.2."),
        (_drop_a_tensor, "truncated or damaged"),
    ],
)
def test_broken_models(installed: Path, damage: Damage, text: str) -> None:
    """Each is a problem that names what is wrong, and how to be rid of it."""
    damage(installed)
    (finding,) = _models()
    assert finding.level == "problem"
    assert text in finding.text
    assert f"{installed}" in finding.text


def test_what_was_interrupted(installed: Path, tmp_path: Path) -> None:
    """A download, and a conversion: no problem, but a warning that says what to do."""
    (tmp_path / "coming").mkdir()
    library.link("coming", tmp_path / "coming")
    (installed.parent / ".stopped.gptoss-mlx-partial").mkdir()
    coming, stopped, whole = sorted(_models(), key=lambda finding: finding.name)
    assert [f.level for f in (coming, stopped, whole)] == ["warning", "warning", "ok"]
    assert "the same command goes on; gptoss-mlx rm coming removes it" in coming.text
    assert stopped.text.startswith("not complete, ")
    (tmp_path / "coming").rmdir()
    assert {finding.level for finding in _models()} == {"ok", "warning", "problem"}


def test_a_bit_that_only_deep_sees(installed: Path) -> None:
    """Headers are right, a number is not."""
    (path,) = find_files(installed)
    name, at = list(read_header(path).items())[5]
    contents = bytearray(path.read_bytes())
    contents[at.offset] ^= 128
    path.write_bytes(contents)
    assert _models()[0].level == "ok"
    (finding,) = _models(deep=True)
    assert finding.level == "problem"
    assert f"{name} is not what was written there" in finding.text


def test_models_that_have_no_hashes(installed: Path) -> None:
    """It is said, and no problem."""
    (installed / "conversion.json").unlink()
    (finding,) = _models(deep=True)
    assert finding.level == "ok"
    assert "its hashes are not known here" in finding.text


def test_models_in_the_cache_of_the_hub(installed: Path, tmp_path: Path) -> None:
    """There blobs have their sha256 for a name, against which they are held."""
    snapshot = _as_snapshot(installed, tmp_path / "models--o--m")
    shutil.rmtree(installed)
    library.link("ready-made", snapshot)
    (finding,) = _models(deep=True)
    assert finding.level == "ok"
    assert "all bytes as the Hub has them" in finding.text
    blob = (snapshot / "generation_config.json").resolve()
    blob.write_bytes(blob.read_bytes()[:-1] + b" ")
    (finding,) = _models(deep=True)
    assert finding.level == "problem"
    assert f"{snapshot / 'generation_config.json'} is damaged: gptoss-mlx rm ready-made" in (
        finding.text
    )


def _as_snapshot(folder: Path, repo: Path) -> Path:
    """The files of a folder, as the shared cache would hold them."""
    snapshot = repo / "snapshots" / ("c" * 40)
    (repo / "blobs").mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for path in folder.iterdir():
        if path.name == "conversion.json":
            continue
        blob = repo / "blobs" / hashlib.sha256(path.read_bytes()).hexdigest()
        shutil.copy(path, blob)
        (snapshot / path.name).symlink_to(os.path.relpath(blob, snapshot))
    return snapshot


def test_a_model_to_be_converted(source: Path) -> None:
    """The next command is named."""
    library.link("tiny-original", source)
    (finding,) = _models(deep=True)
    assert finding.level == "ok"
    assert "to be converted: gptoss-mlx convert" in finding.text


def test_a_model_that_is_too_large(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A warning, with the remedy that chat would name."""
    write_converted_headers(data / "models" / "large", GPT_OSS_20B, "bf16")
    monkeypatch.setenv(VARIABLE, "14GiB")
    (finding,) = _models()
    assert finding.level == "warning"
    assert "the model needs" in finding.text
    assert "--dense q8" in finding.text
    monkeypatch.setenv(VARIABLE, "30GiB")
    (finding,) = _models()
    assert finding.level == "ok"


def test_several_models(installed: Path) -> None:
    """A line each: one that is broken does not hide the others."""
    for name in ("a", "b"):
        write_random_checkpoint(installed.with_name(name), TINY, layout="huggingface")
    (installed / ONE).write_bytes(b"")
    names = {finding.name: finding.level for finding in _models()}
    assert names == {"model a": "ok", "model b": "ok", "model tiny-q8": "problem"}


@pytest.mark.parametrize(
    ("free", "level"), [(50 * 10**9, "ok"), (10**9, "ok"), (10**9 - 1, "problem"), (0, "problem")]
)
def test_disks(free: int, level: str, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three places; below a gigabyte a disk is full. What is not there yet is not made."""
    monkeypatch.setattr(shutil, "disk_usage", disk_with(free))
    findings = list(check_disks())
    assert [finding.name for finding in findings] == ["data", "downloads", "cache"]
    assert {finding.level for finding in findings} == {level}
    assert all(("make room" in finding.text) == (level == "problem") for finding in findings)
    assert not data.exists()


def test_a_folder_of_somebody_else(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be written is a problem, and the nearest folder that is there is named."""

    def access(path: Path, mode: int) -> bool:
        return mode != os.W_OK or path != data.parent

    monkeypatch.setattr(os, "access", access)
    finding = next(check_disks())
    assert finding.level == "problem"
    assert f"{data.parent} cannot be written" in finding.text


def _missing() -> bytes:
    raise VocabularyError("the o200k vocabulary is missing: do this")


@pytest.mark.parametrize(("read", "level"), [(None, "ok"), (_missing, "problem")])
def test_the_vocabulary(
    read: Callable[[], bytes] | None, level: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is read and hashed, not merely there."""
    if read is not None:
        monkeypatch.setattr(vocabulary, "read_vocabulary", read)
    (finding,) = examine("vocabulary", check_vocabulary)
    assert finding.level == level
    assert "o200k" in finding.text
