"""The models that are installed: names, what they are, which one is meant, and removing them."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gptoss_mlx import library
from gptoss_mlx.errors import CheckpointError, DiskError, UsageError

Q8 = {"group_size": 64, "bits": 8, "mode": "affine"}
MXFP4 = {"group_size": 32, "bits": 4, "mode": "mxfp4"}
SIZE_20B = {"num_hidden_layers": 24, "num_local_experts": 32}
READY = {**SIZE_20B, "quantization": {**MXFP4, "lm_head": Q8}}
Make = Callable[..., Path]


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The data folder."""
    monkeypatch.setenv("GPTOSS_MLX_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "data"


@pytest.fixture
def make(data: Path) -> Make:
    """Makes an installed model of so many bytes besides its config."""

    def make(name: str, config: dict[str, Any] | None = None, since: int = 0) -> Path:
        folder = data / "models" / name
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(json.dumps(READY if config is None else config))
        (folder / "model.safetensors").write_bytes(b"x" * 100)
        os.utime(folder, (since, since))
        return folder

    return make


@pytest.mark.parametrize(
    ("config", "size", "variant", "is_ready"),
    [
        (READY, "20b", "q8", True),
        ({**READY, "num_hidden_layers": 36, "num_local_experts": 128}, "120b", "q8", True),
        ({**SIZE_20B, "quantization": {**MXFP4, "lm_head": {**Q8, "bits": 4}}}, "20b", "q4", True),
        ({**SIZE_20B, "quantization": MXFP4}, "20b", "bf16", True),
        ({**SIZE_20B, "quantization": {"group_size": 64, "bits": 6}}, "20b", "q6", True),
        ({**READY, "num_hidden_layers": 2}, "", "q8", True),
        ({**SIZE_20B, "quantization_config": {"quant_method": "mxfp4"}}, "20b", "hf", False),
        ({"num_hidden_layers": 24, "num_experts": 32}, "20b", "original", False),
    ],
)
def test_what_a_model_is(
    make: Make, config: dict[str, Any], size: str, variant: str, is_ready: bool
) -> None:
    """Its config.json says which model it is, and in which variant."""
    make("m", config)
    (model,) = library.installed()
    assert (model.size, model.variant, model.is_ready) == (size, variant, is_ready)
    assert model.nbytes == 100 + len(json.dumps(config))


def test_nothing_is_installed() -> None:
    """No folder is needed for that, and none is made."""
    assert library.installed() == []
    assert library.default() is None
    assert not library.models_folder().exists()


def test_what_is_no_model_is_not_listed(make: Make, data: Path) -> None:
    """Files, hidden folders and what convert is writing for another time are left out."""
    make("m")
    (data / "models" / ".m.gptoss-mlx-partial").mkdir()
    (data / "models" / "notes.txt").touch()
    with library.only_one("m"):
        assert [model.name for model in library.installed()] == ["m"]


def test_what_a_killed_conversion_left(make: Make, data: Path) -> None:
    """It can be seen and removed by the name it was to have, but not used."""
    make(".m.gptoss-mlx-partial")
    (model,) = library.installed()
    assert (model.name, model.is_ready, model.nbytes > 100) == ("m", False, True)
    assert library.find("m") is None
    assert library.find("20b") is None
    assert library.remove(library.get("m"))
    assert list((data / "models").iterdir()) == []


def test_incomplete_ones_are_listed(data: Path) -> None:
    """A link to what has not come yet, and a folder without a config."""
    library.link("coming", data / "nowhere")
    (data / "models" / "empty").mkdir()
    assert [(m.name, m.variant, m.is_ready, m.nbytes) for m in library.installed()] == [
        ("coming", "incomplete", False, 0),
        ("empty", "incomplete", False, 0),
    ]


def test_an_unreadable_folder(data: Path) -> None:
    """It is an error with the folder's name."""
    data.mkdir()
    (data / "models").touch()
    with pytest.raises(DiskError, match="models cannot be read"):
        library.installed()


def test_short_names(make: Make) -> None:
    """20b is the one of that size that was installed last, of those that can be used."""
    make("a", since=3)
    newest = make("b", since=5)
    make("c", {**READY, "num_hidden_layers": 36, "num_local_experts": 128}, since=9)
    make("d-original", {"num_hidden_layers": 24, "num_experts": 32}, since=9)
    assert library.locate("20b") == newest
    assert library.find("120b") == newest.with_name("c")
    default = library.default()
    assert default is not None
    assert default.name == "c"


def test_whole_ones_come_first(good: dict[str, Path], make: Make) -> None:
    """A model that is still coming is not meant by a short name, if there is another."""
    coming = make("coming", {**READY}, since=2**31)
    assert library.find("20b") == coming
    whole = make("whole", since=5)
    shutil.copytree(good["one"], whole, dirs_exist_ok=True)
    (whole / "model.safetensors").unlink()
    (whole / "config.json").write_text(json.dumps(READY))
    assert library.find("20b") == whole


def test_a_short_name_of_nothing(tmp_path: Path) -> None:
    """It says how to install it; a folder of this name would be meant."""
    with pytest.raises(UsageError, match="gptoss-mlx download 120b --convert"):
        library.locate("120b")
    (tmp_path / "120b").mkdir()
    assert library.locate("120b") == Path("120b")


def test_names_and_folders(make: Make, tmp_path: Path) -> None:
    """A folder that is there comes before a name, and ./ always means a folder."""
    model = make("m")
    assert library.locate("m") == model
    assert library.locate("./m") == Path("./m")
    (tmp_path / "m").mkdir()
    assert library.locate("m") == Path("m")
    assert library.locate("nothing") == Path("nothing")


@pytest.mark.parametrize(
    ("repo", "name"),
    [
        ("openai/gpt-oss-20b", "gpt-oss-20b"),
        ("mlx-community/gpt-oss-20b-MXFP4-Q8", "gpt-oss-20b-MXFP4-Q8"),
        ("somebody/gpt-oss-20b", "somebody--gpt-oss-20b"),
    ],
)
def test_names_of_repositories(make: Make, repo: str, name: str) -> None:
    """Two repositories never share a name; a repository's finds what came from it."""
    assert library.stem_of(repo) == name
    assert library.find(repo) is None
    assert library.find(repo) is None
    converted = make(f"{name}-q8", since=5)
    make(f"{name}-q4", since=3)
    assert library.find(repo) == converted
    folder = make(name)
    assert library.find(repo) == folder


@pytest.mark.parametrize("name", ["", "..", ".hidden", "a/b/c", "../models/m", "~"])
def test_what_cannot_be_a_name(make: Make, name: str) -> None:
    """Nothing outside the folder is ever meant."""
    make("m")
    assert library.find(name) is None
    with pytest.raises(UsageError, match="no model"):
        library.get(name)
    with pytest.raises(UsageError, match="is no model's name"):
        library.folder_of(name)


def test_links(make: Make, tmp_path: Path) -> None:
    """A name may lead elsewhere, and be led anew if that is gone; but it replaces no model."""
    library.link("m", tmp_path / "a")
    with pytest.raises(CheckpointError, match=r"lies in .*/a, which is not there.* rm m forgets"):
        library.locate("m")
    library.link("m", tmp_path / "b")
    assert library.get("m").place == tmp_path / "b"
    make("ready").rename(tmp_path / "b")
    with pytest.raises(UsageError, match=r"a model m is there already, in .*/b: gptoss-mlx rm m"):
        library.link("m", tmp_path / "a")
    make("real")
    with pytest.raises(UsageError, match="a model real is there already: gptoss-mlx rm real"):
        library.link("real", tmp_path / "a")


def test_removing(make: Make, data: Path) -> None:
    """The folder is gone, with what an earlier attempt left."""
    make("m")
    (data / "models" / ".m.gptoss-mlx-removed").mkdir()
    assert library.remove(library.get("m"))
    assert list((data / "models").iterdir()) == []


def test_removing_a_name(make: Make, data: Path, tmp_path: Path) -> None:
    """A folder of the user's is only forgotten."""
    folder = make("m").rename(tmp_path / "mine")
    library.link("m", folder)
    assert not library.remove(library.get("m"))
    assert (folder / "model.safetensors").is_file()
    assert list((data / "models").iterdir()) == []


def test_one_at_a_time() -> None:
    """Nobody installs or removes what another one does; other models are no matter."""
    busy = pytest.raises(UsageError, match="another gptoss-mlx is installing or removing m")
    with library.only_one("m"), library.only_one("n"), busy, library.only_one("m"):
        pass
    with library.only_one("m"):
        pass


def test_removing_what_cannot_be(make: Make, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is an error with the place, and the model stays."""
    model = make("m")

    def fail(*_: object) -> None:
        raise PermissionError(13, "Permission denied", str(model))

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(DiskError, match=r"models/m cannot be removed: Permission denied"):
        library.remove(library.get("m"))
    assert (data / "models" / "m" / "config.json").is_file()


def test_problems(good: dict[str, Path], make: Make) -> None:
    """Headers tell what is truncated or missing."""
    library.link("good", good["several"])
    assert library.problem_of(library.get("good")) is None
    make("bad")
    assert "truncated or damaged" in (library.problem_of(library.get("bad")) or "")
