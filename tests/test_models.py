"""The demo by its name: converted once, into the cache folder, whoever else does the same."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import mlx.core as mx
import pytest
from checkpoints import fingerprint

from gptoss_mlx import load, models
from gptoss_mlx.ceiling import VARIABLE
from gptoss_mlx.config import read_config_file
from gptoss_mlx.errors import MemoryPlanError, MissingFileError, UsageError
from gptoss_mlx.memory import MINIMUM_CONTEXT, Use
from gptoss_mlx.tokenizer import VOCAB_SIZE

# Both processes write the demo; its tokenizer.json, which takes seconds, they leave out.
RESOLVE = """
from gptoss_mlx.convert import conversion
from gptoss_mlx.models import resolve
conversion.add_tokenizer = lambda *_: None
print(resolve("demo"))
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's folder, in a new cache folder, made by two processes at once."""
    home = tmp_path_factory.mktemp("home")
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", RESOLVE],
            env={**os.environ, "XDG_CACHE_HOME": str(home)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    first, second = (process.communicate(timeout=120)[0] for process in processes)
    assert [process.returncode for process in processes] == [0, 0]
    assert first == second
    folder = Path(first.strip())
    assert folder.parent == home / "gptoss-mlx"
    return folder


def test_two_processes_make_one_demo(made: Path) -> None:
    """Two first starts at once leave one complete folder and nothing half-made beside it."""
    assert read_config_file(made / "config.json")["vocab_size"] == VOCAB_SIZE
    assert list(made.glob("*.safetensors"))
    assert [path for path in made.parent.iterdir() if path.is_dir()] == [made]


def test_the_second_load_converts_nothing(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is in the cache is used as it is, and gives a model that runs."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(made.parent.parent))
    monkeypatch.setattr(models, "convert", _fail)
    before = fingerprint(made)
    model = load("demo")
    logits = model(mx.array([[1, 2, 3]]))
    assert logits.shape == (1, 3, model.config.vocab_size)
    assert mx.isfinite(logits).all().item()
    assert fingerprint(made) == before


def test_a_read_only_cache(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the cache folder cannot be made, the demo goes into a temporary one."""
    blocked = tmp_path / "file"
    blocked.write_text("no folder can be made here")
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def copy_what_was_made(_: Path, new: Path) -> None:
        shutil.copytree(made, new)

    monkeypatch.setattr(models, "convert", copy_what_was_made)
    folder = models.resolve("demo")
    assert folder.is_relative_to(tmp_path)
    assert fingerprint(folder) == fingerprint(made)


def test_a_failed_conversion_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After an error the next start finds no half-made demo."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(models.demo, "unpack", _fail)
    with pytest.raises(ZeroDivisionError):
        load("demo")
    assert list((tmp_path / "gptoss-mlx").iterdir()) == []


def test_an_empty_name_is_no_folder() -> None:
    """It comes from a variable that is not set, and must not mean the current folder."""
    with pytest.raises(UsageError, match="empty"):
        load("")


def test_installed_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed model is meant by its name; a size that is not installed by nothing."""
    monkeypatch.setenv("GPTOSS_MLX_DATA", str(tmp_path))
    (tmp_path / "models" / "mine").mkdir(parents=True)
    assert models.resolve("mine") == tmp_path / "models" / "mine"
    with pytest.raises(UsageError, match="gptoss-mlx download 20b --convert"):
        models.resolve("20b")


def test_other_names_are_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any other name is a path, in which ~ is the home folder."""
    monkeypatch.setenv("HOME", str(tmp_path))
    assert models.resolve("~/m") == tmp_path / "m"
    assert models.resolve(tmp_path) == tmp_path
    with pytest.raises(MissingFileError, match="demo"):
        load(tmp_path / "absent")


def test_what_does_not_fit_is_refused(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is loaded, with what there is and what it takes."""
    monkeypatch.setenv(VARIABLE, "1MiB")
    monkeypatch.setattr(models, "load_model", _fail)
    with pytest.raises(MemoryPlanError, match=r"needs 0\.\d+ GiB, .* 0\.00 GiB \(GPTOSS_MLX_MEM"):
        load(made)


def test_a_smaller_context_is_noted(
    made: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The model is loaded, and one warning says how many tokens fit."""
    plan = models.plan_for(made)
    assert plan.verdict == "fits"
    less = models.plan_for(made, use=Use(context=MINIMUM_CONTEXT)).total + (1 << 20)
    assert less < plan.total
    monkeypatch.setenv(VARIABLE, str(less))
    load(made)
    assert len(caplog.messages) == 1
    fits = models.plan_for(made).context
    assert caplog.messages[0].startswith(f"{fits:,} of {plan.wanted:,} tokens of context fit in")


def test_the_demo_fits_anywhere(
    made: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """With all of its context in four gigabytes, and without a word."""
    monkeypatch.setenv(VARIABLE, "4GiB")
    load(made)
    assert caplog.messages == []


def test_plans_follow_the_dtype(made: Path) -> None:
    """Keys and values in bfloat16 take half of what they take in float32."""
    half, full = (models.plan_for(made, dtype=dtype) for dtype in (mx.bfloat16, mx.float32))
    assert half.lines[1].name == "KV cache"
    assert 2 * half.lines[1].nbytes == full.lines[1].nbytes


def test_the_embedding_can_stay_on_disk(made: Path) -> None:
    """The same logits, in as much less memory as the table takes."""
    ids = mx.array([[200_006, 1, 2, 1]])
    in_memory, on_disk = load(made), load(made, use=Use(embedding="disk"))
    assert mx.array_equal(in_memory(ids), on_disk(ids)).item()
    held, left = (sum(a.nbytes for a in model.arrays) for model in (in_memory, on_disk))
    assert left == held - sum(a.nbytes for a in in_memory.embedding.arrays) < held


def test_plans_of_no_checkpoint(tmp_path: Path) -> None:
    """What cannot be loaded has no plan either, for the same reason."""
    with pytest.raises(MissingFileError, match="demo"):
        models.plan_for(tmp_path / "absent")


def _fail(*_: object) -> None:
    raise ZeroDivisionError
