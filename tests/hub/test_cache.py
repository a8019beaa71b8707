"""Removing from the shared cache what was put there, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from gptoss_mlx.hub import Hub, Source, download, read_manifest
from gptoss_mlx.hub.cache import holder, remove

from .conftest import Told
from .server import COMMIT, FakeHub, Repository

REPO = "openai/gpt-oss-20b"


def fetched(hub: Hub, source: Source = "original") -> Path:
    """A downloaded checkpoint."""
    return download(hub, read_manifest(hub, REPO, source=source), Told())


def blobs(hub: Hub) -> int:
    """How many blobs there are."""
    return len(list(hub.cache.glob("models--*/blobs/*")))


def test_all_of_it(hub: Hub) -> None:
    """The last checkpoint of a repository takes its whole folder with it."""
    remove(fetched(hub))
    assert not list(hub.cache.glob("models--*"))


@pytest.mark.parametrize(("doomed", "kept"), [("original", "hf"), ("hf", "original")])
def test_another_checkpoint_stays(hub: Hub, doomed: Source, kept: Source) -> None:
    """The other layout in the same snapshot stays whole, with the tokenizer."""
    folder, other = fetched(hub, doomed), fetched(hub, kept)
    remove(folder)
    assert not list(folder.glob("*.safetensors"))
    assert [path.stat().st_size for path in other.glob("*.safetensors")] == [1 << 20]
    assert (
        hub.cache / "models--openai--gpt-oss-20b/snapshots" / COMMIT / "tokenizer.json"
    ).exists()
    before = blobs(hub)
    assert fetched(hub, kept) == other
    assert blobs(hub) == before


def test_what_others_fetched_stays(hub: Hub) -> None:
    """Files of the same commit that are no part of the checkpoint, and the tokenizer with them."""
    folder = fetched(hub)
    others = [hub.api.hf_hub_download(REPO, "README.md", cache_dir=hub.cache)]
    remove(folder)
    others.append(str(folder.parent / "tokenizer.json"))
    assert all(Path(other).is_file() for other in others)
    assert blobs(hub) == len(others)


def test_a_revision_that_is_not_there(hub: Hub) -> None:
    """It keeps nothing from being removed."""
    folder = fetched(hub)
    ref = hub.cache / "models--openai--gpt-oss-20b/refs/v1"
    ref.write_text("e" * 40)
    remove(folder)
    assert not list(hub.cache.glob("models--*"))


def test_the_same_commit_of_another_repository(hub: Hub, fake: FakeHub) -> None:
    """A mirror's commit has the same name: it stays."""
    fake.repositories["a/mirror"] = fake.repositories[REPO]
    mirror = download(hub, read_manifest(hub, "a/mirror"), Told())
    remove(fetched(hub))
    assert [path.name for path in hub.cache.glob("models--*")] == ["models--a--mirror"]
    assert (mirror / "model.safetensors").stat().st_size == 1 << 20


def test_another_commit_stays(hub: Hub, fake: FakeHub) -> None:
    """A blob that another commit has as well is not removed."""
    first = fetched(hub)
    old = fake.repositories[REPO]
    fake.repositories[REPO] = Repository({**old.files, "config.json": b"new"}, "f" * 40)
    second = fetched(hub)
    remove(first)
    assert (second / "model.safetensors").stat().st_size == 1 << 20


def test_what_a_killed_run_left(hub: Hub) -> None:
    """A partial file goes with the rest."""
    folder = fetched(hub)
    fetched(hub, "hf")
    partial = hub.cache / "models--openai--gpt-oss-20b/blobs/x.gptoss-mlx.incomplete"
    partial.touch()
    remove(folder)
    assert not partial.exists()


def test_what_is_in_no_cache(tmp_path: Path) -> None:
    """A folder elsewhere is told apart."""
    assert holder(tmp_path) is None
    with pytest.raises(ValueError, match="in no cache"):
        remove(tmp_path)
