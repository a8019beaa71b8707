"""From a name to a model that can be used: from a server that speaks the Hub's protocol."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from checkpoints import ONE_FILE, SHARD
from helpers import write_converted
from hub.conftest import Told
from hub.server import FakeHub, Repository, running
from huggingface_hub import constants

from gptoss_mlx import installation, library
from gptoss_mlx.errors import (
    DiskError,
    GptOssError,
    HubError,
    MemoryPlanError,
    MissingFileError,
    UsageError,
)
from gptoss_mlx.hub import Hub, Manifest, RemoteFile, cache
from gptoss_mlx.installation import Order, install, repository
from gptoss_mlx.weights import read_checkpoint

pytestmark = pytest.mark.usefixtures("no_tokenizer")


class Seen(Told):
    """Who is told of an installation."""

    def __init__(self) -> None:
        super().__init__()
        self.missing: list[int] = []
        self.converted: list[tuple[int, int]] = []

    def planned(self, manifest: Manifest, missing: int) -> None:  # noqa: ARG002
        """Remember how much."""
        self.missing.append(missing)

    def converting(self, done: int, total: int) -> None:
        """Remember how far."""
        self.converted.append((done, total))


@pytest.fixture(scope="module")
def server() -> Iterator[FakeHub]:
    """One server for the module."""
    with running() as hub:
        yield hub


@pytest.fixture
def fake(server: FakeHub, source: Path, tmp_path: Path) -> FakeHub:
    """OpenAI's repository, of a small model, and a ready-made one."""
    port = server.port
    FakeHub.__init__(server)
    server.port = port
    original = {f"original/{path.name}": path.read_bytes() for path in source.iterdir()}
    ready = write_converted(tmp_path / "made")
    made = {path.name: path.read_bytes() for path in ready.iterdir()}
    server.repositories["openai/gpt-oss-20b"] = Repository(original)
    server.repositories["mlx-community/gpt-oss-20b-MXFP4-Q8"] = Repository(
        made, "a" * 40, tags=("mlx",)
    )
    return server


@pytest.fixture
def hub(fake: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """How it is reached; models are kept in a folder of this test."""
    monkeypatch.setenv("GPTOSS_MLX_DATA", str(tmp_path / "data"))
    return Hub(fake.url, tmp_path / "cache", pause=0.01, patience=2)


def names() -> list[str]:
    """What is installed."""
    return [model.name for model in library.installed()]


def fetch_otherwise(hub: Hub, fake: FakeHub, repo: str, without: str = "") -> None:
    """Put a repository into the shared cache as other programs do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        for name in fake.repositories[repo].files.keys() - {without}:
            hub.api.hf_hub_download(repo, name, cache_dir=hub.cache)


def test_download_and_convert(hub: Hub) -> None:
    """The conversion is installed, the original is gone, and nothing else is left."""
    seen = Seen()
    outcome = install(Order("20b", converts=True), seen, hub)
    assert (outcome.model, outcome.converted, outcome.removed) == ("gpt-oss-20b-q8", True, True)
    read_checkpoint(outcome.folder)
    assert names() == ["gpt-oss-20b-q8"]
    assert not list(hub.cache.glob("models--*"))
    assert seen.converted[-1][0] == seen.converted[-1][1] > 0


def test_it_is_done_once(hub: Hub, fake: FakeHub) -> None:
    """What is installed is not downloaded again; not even the Hub is asked."""
    install(Order("20b", converts=True), Seen(), hub)
    fake.requests.clear()
    outcome = install(Order("20b", converts=True), Seen(), hub)
    assert outcome.was_there
    assert not fake.requests


def test_the_original_may_be_kept(hub: Hub) -> None:
    """--keep-original: it stays in the cache, and in the list."""
    outcome = install(Order("20b", converts=True, keeps_original=True), Seen(), hub)
    assert not outcome.removed
    assert names() == ["gpt-oss-20b-original", "gpt-oss-20b-q8"]
    assert (library.get("gpt-oss-20b-original").place / ONE_FILE).is_file()


def test_what_others_have_is_kept(hub: Hub, fake: FakeHub) -> None:
    """An original that was in the shared cache before is used, and not removed."""
    fetch_otherwise(hub, fake, "openai/gpt-oss-20b")
    seen = Seen()
    outcome = install(Order("20b", converts=True), seen, hub)
    assert seen.missing == [0]
    assert not outcome.removed
    assert names() == ["gpt-oss-20b-q8"]
    assert list(hub.cache.rglob(ONE_FILE))


def test_what_an_interrupted_run_fetched_is_removed(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An original of an earlier run of ours is ours: it was interrupted before it could go on."""
    with monkeypatch.context() as patch:
        patch.setattr(installation, "convert", _interrupted)
        with pytest.raises(KeyboardInterrupt):
            install(Order("20b", converts=True), Seen(), hub)
    assert names() == ["gpt-oss-20b-original"]
    seen = Seen()
    outcome = install(Order("20b", converts=True), seen, hub)
    assert seen.missing == [0]
    assert outcome.removed
    assert names() == ["gpt-oss-20b-q8"]


def _interrupted(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_a_damaged_model_is_installed_anew(hub: Hub) -> None:
    """By the same command; also where only an empty folder is left of it."""
    folder = install(Order("20b", converts=True), Seen(), hub).folder
    for damage in (_cut, _empty):
        damage(folder)
        seen = Seen()
        outcome = install(Order("20b", converts=True), seen, hub)
        assert outcome.converted
        assert seen.notes[0].startswith("gpt-oss-20b-q8 is damaged (")
        read_checkpoint(folder)


def _cut(folder: Path) -> None:
    os.truncate(next(folder.glob("*.safetensors")), 99)


def _empty(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


def test_an_original_that_cannot_be_removed(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """The conversion is installed all the same."""

    def fail(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(cache, "remove", fail)
    seen = Seen()
    outcome = install(Order("20b", converts=True), seen, hub)
    assert (outcome.model, outcome.removed) == ("gpt-oss-20b-q8", False)
    assert "The original stays: " in seen.notes[-1]
    assert names() == ["gpt-oss-20b-original", "gpt-oss-20b-q8"]


def test_nobody_else_meanwhile(hub: Hub) -> None:
    """Two orders for one repository, whatever they make of it, do not meet."""
    with library.only_one("gpt-oss-20b"), pytest.raises(UsageError, match="wait for it"):
        install(Order("20b", converts=True, dense="q4"), Seen(), hub)


def test_an_interrupted_download_is_listed(hub: Hub, fake: FakeHub) -> None:
    """What has come can be seen, and removed with all its parts."""
    fake.faults.statuses = [500] * 9
    with pytest.raises(HubError):
        install(Order("20b"), Seen(), hub)
    model = library.get("gpt-oss-20b-original")
    assert library.problem_of(model)
    assert not model.is_ready
    assert model.nbytes > 0  # of which the config is a part
    assert library.remove(model)
    assert not list(hub.cache.rglob("*incomplete"))
    assert names() == []


def test_a_ready_made_one(hub: Hub) -> None:
    """It is used as it is, from the shared cache, by its repository's name."""
    repo = "mlx-community/gpt-oss-20b-MXFP4-Q8"
    outcome = install(Order(repo, converts=True), Seen(), hub)
    assert (outcome.model, outcome.converted) == ("gpt-oss-20b-MXFP4-Q8", False)
    assert outcome.folder.is_relative_to(hub.cache)
    read_checkpoint(library.locate(repo))
    assert library.remove(library.get(repo))
    assert not list(hub.cache.glob("models--*"))


def test_a_ready_made_one_that_is_in_the_cache(hub: Hub, fake: FakeHub) -> None:
    """What other programs fetched gets a name here."""
    repo = "mlx-community/gpt-oss-20b-MXFP4-Q8"
    fetch_otherwise(hub, fake, repo)
    outcome = install(Order("20b", source="mlx"), Seen(), hub)
    assert names() == [outcome.model] == ["gpt-oss-20b-MXFP4-Q8"]


def test_into_a_folder(hub: Hub, tmp_path: Path) -> None:
    """--dir: the original stays there, even if it was converted."""
    folder = tmp_path / "here"
    outcome = install(Order("20b", folder=folder, converts=True), Seen(), hub)
    assert not outcome.removed
    assert (folder / "original" / ONE_FILE).is_file()
    assert not hub.cache.exists()


def test_a_copy_in_a_folder_besides(hub: Hub, tmp_path: Path) -> None:
    """The one in the cache keeps its name, and is the one that is removed."""
    install(Order("20b"), Seen(), hub)
    install(Order("20b", folder=tmp_path / "here"), Seen(), hub)
    (model,) = library.installed()
    assert model.place.is_relative_to(hub.cache)
    assert install(Order("20b", converts=True), Seen(), hub).removed
    assert not list(hub.cache.glob("models--*"))
    assert (tmp_path / "here" / "original" / ONE_FILE).is_file()


def test_a_folder_with_other_files(hub: Hub, tmp_path: Path) -> None:
    """They are not touched; nor may a name lead to two ready-made copies."""
    (tmp_path / "config.json").write_text("mine")
    repo = "mlx-community/gpt-oss-20b-MXFP4-Q8"
    with pytest.raises(DiskError, match=r"config\.json is there already, and is not what"):
        install(Order(repo, folder=tmp_path), Seen(), hub)
    assert (tmp_path / "config.json").read_text() == "mine"
    install(Order(repo), Seen(), hub)
    with pytest.raises(UsageError, match="a model gpt-oss-20b-MXFP4-Q8 is there already, in "):
        install(Order(repo, folder=tmp_path / "here"), Seen(), hub)
    assert not (tmp_path / "here").exists()


def test_a_copy_in_the_cache_besides(hub: Hub, tmp_path: Path) -> None:
    """The name of an original in a folder of the user's goes to the one that can be removed."""
    install(Order("20b", folder=tmp_path / "here"), Seen(), hub)
    install(Order("20b"), Seen(), hub)
    (model,) = library.installed()
    assert model.place.is_relative_to(hub.cache)
    assert (tmp_path / "here" / "original" / ONE_FILE).is_file()


def test_a_newer_commit(hub: Hub, fake: FakeHub) -> None:
    """It takes the name, and the older one is removed, unless another name leads to it."""
    repo = "mlx-community/gpt-oss-20b-MXFP4-Q8"
    first = install(Order(repo), Seen(), hub).folder
    named = install(Order(repo, "a" * 40), Seen(), hub)
    assert named.folder == first
    made = fake.repositories[repo].files
    fake.repositories[repo] = Repository(
        {**made, "config.json": bytes(made["config.json"]) + b" "}, "b" * 40, ("mlx",)
    )
    second = install(Order(repo), Seen(), hub).folder
    assert library.locate(repo).readlink() == second != first
    assert (first / "config.json").is_file()
    assert named.model is not None
    assert library.remove(library.get(named.model))
    assert not first.exists()
    read_checkpoint(second)
    fake.repositories[repo] = Repository(made, "c" * 40, ("mlx",))
    install(Order(repo), Seen(), hub)
    assert not second.exists()


def test_another_revision_has_another_name(hub: Hub, fake: FakeHub) -> None:
    """So that both can be installed."""
    commit = fake.repositories["openai/gpt-oss-20b"].commit
    outcome = install(Order("20b", commit, converts=True), Seen(), hub)
    assert outcome.model == f"gpt-oss-20b-{commit}-q8"


def test_a_part_of_the_shards(
    hub: Hub, fake: FakeHub, good: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Offline, a cache with some of the shards only is not taken for the whole."""
    files = {f"original/{path.name}": path.read_bytes() for path in good["several"].iterdir()}
    missing = f"original/{SHARD}"
    fake.repositories["openai/gpt-oss-20b"] = Repository(files)
    fetch_otherwise(hub, fake, "openai/gpt-oss-20b", without=missing)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(MissingFileError, match=f"{SHARD} is missing"):
        install(Order("20b", converts=True), Seen(), hub)
    assert names() == []


@pytest.fixture
def published(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """The manifest of the real 20b, which nobody has here."""
    files = (
        RemoteFile("original/config.json", 400, None),
        RemoteFile("original/model.safetensors", 13_761_300_984, "0" * 64),
    )
    manifest = Manifest("openai/gpt-oss-20b", "main", "c" * 40, "original", files)
    monkeypatch.setattr(installation, "read_manifest", lambda *_: manifest)  # pyright: ignore
    return hub


def _with_20_gb_free(_: object) -> SimpleNamespace:
    return SimpleNamespace(free=20 * 10**9)


@pytest.mark.parametrize(("dense", "gigabytes"), [("q8", "12.1"), ("bf16", "13.8")])
def test_space_for_both(
    published: Hub, monkeypatch: pytest.MonkeyPatch, dense: str, gigabytes: str
) -> None:
    """Download and conversion must fit together, before a byte is fetched."""
    monkeypatch.setenv("GPTOSS_MLX_MEMORY", "64GiB")
    monkeypatch.setattr(shutil, "disk_usage", _with_20_gb_free)
    order = Order("20b", converts=True, dense=json.loads(f'"{dense}"'))
    expected = rf"13\.8 GB for the download, {gigabytes} GB for the conversion, and 20\.0 GB free"
    with pytest.raises(DiskError, match=expected):
        install(order, Seen(), published)
    assert names() == []


def test_memory_is_checked(published: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """What this machine could not load is not downloaded to be converted, unless that is wanted."""
    monkeypatch.setenv("GPTOSS_MLX_MEMORY", "8GiB")
    with pytest.raises(MemoryPlanError, match="for another machine, pass --elsewhere"):
        install(Order("20b", converts=True), Seen(), published)
    with pytest.raises(MemoryPlanError, match="converted to q4"):  # of which least is needed
        install(Order("20b"), Seen(), published)
    with pytest.raises(HubError):  # the memory is no matter; but nobody has these files
        install(Order("20b", converts=True, elsewhere=True), Seen(), published)


def test_memory_for_a_ready_made_one(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of which only the size is known: what could never be loaded is refused."""
    files = (RemoteFile("config.json", 400, None), RemoteFile("m.safetensors", 63 * 10**9, None))
    manifest = Manifest("mlx-community/gpt-oss-120b-MXFP4-Q8", "main", "c" * 40, "mlx", files)
    monkeypatch.setattr(installation, "read_manifest", lambda *_: manifest)  # pyright: ignore
    monkeypatch.setenv("GPTOSS_MLX_MEMORY", "57GiB")
    with pytest.raises(MemoryPlanError, match=r"57\.\d+ GiB.* there are 57\.00 .*--elsewhere"):
        install(Order(manifest.repo), Seen(), hub)
    monkeypatch.setenv("GPTOSS_MLX_MEMORY", "58GiB")
    monkeypatch.setattr(shutil, "disk_usage", _with_20_gb_free)
    with pytest.raises(DiskError, match=r"63\.0 GB for the download"):  # the next check
        install(Order(manifest.repo), Seen(), hub)


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        (Order("20b"), ("openai/gpt-oss-20b", "original")),
        (Order("120b", source="hf"), ("openai/gpt-oss-120b", "hf")),
        (Order("20b", source="mlx"), ("mlx-community/gpt-oss-20b-MXFP4-Q8", "mlx")),
        (Order("120b", source="mlx", dense="q4"), ("mlx-community/gpt-oss-120b-MXFP4-Q4", "mlx")),
        (Order("a/b"), ("a/b", None)),
    ],
)
def test_repositories(order: Order, expected: tuple[str, str | None]) -> None:
    """What names stand for."""
    assert repository(order.model, order.source, order.dense) == expected


@pytest.mark.parametrize(
    "order", [Order("21b"), Order("demo"), Order("20b", source="mlx", dense="bf16")]
)
def test_what_stands_for_nothing(order: Order) -> None:
    """It is an error of usage."""
    with pytest.raises(UsageError):
        repository(order.model, order.source, order.dense)


def test_a_damaged_original(hub: Hub, fake: FakeHub) -> None:
    """If the repository itself is not right, what was fetched stays listed."""
    files = fake.repositories["openai/gpt-oss-20b"].files
    name = f"original/{ONE_FILE}"
    fake.repositories["openai/gpt-oss-20b"].files = {**files, name: files[name][:-9]}
    with pytest.raises(GptOssError, match="truncated or damaged"):
        install(Order("20b", converts=True), Seen(), hub)
    assert names() == ["gpt-oss-20b-original"]
