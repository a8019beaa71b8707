"""Downloads from a server that speaks the Hub's protocol: right bytes, or one clear line."""

from __future__ import annotations

import errno
import fcntl
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
from huggingface_hub import constants

from gptoss_mlx.errors import DiskError, HubError
from gptoss_mlx.hub import (
    Hub,
    Manifest,
    Need,
    check_space,
    download,
    missing_bytes,
    place_of,
    read_manifest,
)

from .conftest import BIG, Told
from .server import FakeHub

REPO = "openai/gpt-oss-20b"
WEIGHTS = "original/model.safetensors"
NEEDED = ["original/config.json", "original/model.safetensors", "tokenizer.json"]


@pytest.fixture
def manifest(hub: Hub) -> Manifest:
    """The original's files."""
    return read_manifest(hub, REPO)


def contents(folder: Path) -> dict[str, bytes]:
    """All files below a folder that are whole or look so."""
    return {p.name: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_download(hub: Hub, fake: FakeHub, manifest: Manifest, told: Told) -> None:
    """What is needed lies in the shared cache, and nothing else was fetched."""
    assert missing_bytes(hub, manifest) == manifest.nbytes
    folder = download(hub, manifest, told)
    assert folder == place_of(hub, manifest, None)
    assert (folder / "model.safetensors").read_bytes() == BIG
    assert sorted(told.names) == NEEDED
    assert fake.served == {WEIGHTS: len(BIG), "tokenizer.json": 1998}
    assert told.received[-1] == told.checked[-1] == len(BIG)
    assert missing_bytes(hub, manifest) == 0
    assert not list(hub.cache.rglob("*incomplete*"))


def test_others_find_it(hub: Hub, manifest: Manifest, told: Told) -> None:
    """What was downloaded is where huggingface-hub looks for it, without a network."""
    folder = download(hub, manifest, told)
    found = huggingface_hub.hf_hub_download(
        REPO, WEIGHTS, cache_dir=hub.cache, local_files_only=True
    )
    assert Path(found) == folder / "model.safetensors"


def test_what_others_fetched_is_used(
    hub: Hub, fake: FakeHub, manifest: Manifest, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that huggingface-hub has put into the cache is not fetched again."""
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    huggingface_hub.hf_hub_download(REPO, WEIGHTS, cache_dir=hub.cache, endpoint=hub.endpoint)
    fake.served.clear()
    assert missing_bytes(hub, manifest) == manifest.nbytes - len(BIG)
    download(hub, manifest, told)
    assert WEIGHTS not in fake.served


def test_a_second_download(hub: Hub, fake: FakeHub, manifest: Manifest, told: Told) -> None:
    """It fetches nothing, but reads and checks everything."""
    download(hub, manifest, told)
    fake.served.clear()
    again = Told()
    download(hub, manifest, again)
    assert not fake.served
    assert again.checked[-1] == len(BIG)
    assert sorted(again.names) == NEEDED


def test_into_a_folder(hub: Hub, manifest: Manifest, told: Told, tmp_path: Path) -> None:
    """--dir: the files lie there as in the repository, and the cache has none."""
    folder = download(hub, manifest, told, tmp_path / "here")
    assert folder == tmp_path / "here" / "original"
    assert contents(tmp_path / "here").keys() == {Path(name).name for name in NEEDED}
    assert not hub.cache.exists()


def test_a_folder_takes_from_the_cache(
    hub: Hub, fake: FakeHub, manifest: Manifest, told: Told, tmp_path: Path
) -> None:
    """What the cache has is copied, and checked."""
    download(hub, manifest, told)
    fake.served.clear()
    folder = download(hub, manifest, Told(), tmp_path / "here")
    assert (folder / "model.safetensors").read_bytes() == BIG
    assert not fake.served


def test_gone_on_with(hub: Hub, fake: FakeHub, manifest: Manifest, told: Told) -> None:
    """What an earlier run left of a file is kept, and only the rest is fetched."""
    partial = leave(hub, manifest, BIG[:400_000])
    assert missing_bytes(hub, manifest) == manifest.nbytes - 400_000
    download(hub, manifest, told)
    assert fake.served[WEIGHTS] == len(BIG) - 400_000
    assert partial.with_suffix("").with_suffix("").read_bytes() == BIG
    assert not partial.exists()


def test_only_the_check_was_missing(
    hub: Hub, fake: FakeHub, manifest: Manifest, told: Told
) -> None:
    """If all bytes had come when the run was killed, none is asked for."""
    leave(hub, manifest, BIG)
    folder = download(hub, manifest, told)
    assert (folder / "model.safetensors").read_bytes() == BIG
    assert fake.served[WEIGHTS] == 0
    assert told.checked[-1] == len(BIG)


def leave(hub: Hub, manifest: Manifest, data: bytes) -> Path:
    """Put there what a killed run leaves of the weights."""
    blob = next(file.etag for file in manifest.files if file.is_weights)
    partial = hub.cache / f"models--openai--gpt-oss-20b/blobs/{blob}.gptoss-mlx.incomplete"
    partial.parent.mkdir(parents=True)
    partial.write_bytes(data)
    return partial


def test_a_damaged_rest(hub: Hub, manifest: Manifest, told: Told) -> None:
    """If what was left is damaged, the whole file is fetched anew, and the user told which."""
    leave(hub, manifest, b"x" * 1000)
    folder = download(hub, manifest, told)
    assert (folder / "model.safetensors").read_bytes() == BIG
    assert told.notes == [f"{WEIGHTS} is damaged: its hash is wrong. Fetching it anew."]


def test_damaged_on_the_way(hub: Hub, fake: FakeHub, manifest: Manifest, told: Told) -> None:
    """Wrong bytes are found, and fetched anew."""
    fake.faults.corrupt = 1
    folder = download(hub, manifest, told)
    assert (folder / "model.safetensors").read_bytes() == BIG
    assert len(told.notes) == 1


def test_always_damaged(hub: Hub, fake: FakeHub, manifest: Manifest, told: Told) -> None:
    """Wrong bytes twice are an error that names the file; nothing is taken for whole."""
    fake.faults.corrupt = 9
    with pytest.raises(HubError, match=r"original/model\.safetensors came damaged twice"):
        download(hub, manifest, told)
    assert fake.faults.corrupt == 7
    assert BIG[1:] not in [data[1:] for data in contents(hub.cache).values()]


def test_damaged_on_the_disk(hub: Hub, manifest: Manifest, told: Told) -> None:
    """A cached file of the right size with wrong bytes is fetched anew, under the same name."""
    folder = download(hub, manifest, told)
    blob = (folder / "model.safetensors").resolve()
    blob.write_bytes(b"x" * len(BIG))
    download(hub, manifest, told)
    assert (folder / "model.safetensors").read_bytes() == BIG
    assert told.notes == [f"{WEIGHTS} is damaged on this disk. Fetching it anew."]


def test_broken_connections(hub: Hub, fake: FakeHub, manifest: Manifest, told: Told) -> None:
    """Each is gone on with, from where it broke, as long as something comes."""
    fake.faults.cut = [200_000, 100_000, 0, 0, 100_000]
    folder = download(hub, manifest, told)
    assert (folder / "model.safetensors").read_bytes() == BIG
    assert fake.served[WEIGHTS] == len(BIG)
    asked = [headers.get("range") for _, path, headers in fake.requests if "/lfs/" in path]
    assert asked == [None, None, *(f"bytes={n << 16}-" for n in (4, 6, 6, 6, 8))]
    assert told.notes == [f"{WEIGHTS}: the connection broke; going on."] * 5


@pytest.mark.parametrize("status", [500, 502, 503])
def test_a_server_that_fails_for_a_while(
    hub: Hub, fake: FakeHub, manifest: Manifest, told: Told, status: int
) -> None:
    """Its errors are waited out, for metadata and files."""
    fake.faults.statuses = [status, status]
    folder = download(hub, manifest, told)
    assert (folder / "model.safetensors").read_bytes() == BIG
    assert "going on" in told.notes[0]
    fake.faults.api_statuses = [status, status]
    assert read_manifest(hub, REPO) == manifest


def test_a_server_that_keeps_failing(
    hub: Hub, fake: FakeHub, manifest: Manifest, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After some attempts there is one line, and what was fetched stays."""
    fake.faults.cut, fake.faults.statuses = [500_000], []

    def fail_from_now_on(*_: object) -> None:
        fake.faults.statuses = [503] * 9

    monkeypatch.setattr("gptoss_mlx.hub.transfer.wait", fail_from_now_on)
    with pytest.raises(HubError, match=r"status 503.*the same command goes on") as raised:
        download(hub, manifest, told)
    assert "\n" not in str(raised.value)
    assert 0 < missing_bytes(hub, manifest) < len(BIG)


def test_no_ranges(hub: Hub, fake: FakeHub, manifest: Manifest, told: Told) -> None:
    """A server that sends all of a file, whatever was asked for, is understood."""
    leave(hub, manifest, BIG[:100_000])
    fake.faults.no_ranges = True
    folder = download(hub, manifest, told)
    assert (folder / "model.safetensors").read_bytes() == BIG
    assert not told.notes


@pytest.mark.parametrize("have", [0, 400_000])
def test_a_login_page(hub: Hub, fake: FakeHub, manifest: Manifest, told: Told, have: int) -> None:
    """A page that is sent instead is not written over, or in front of, what has come."""
    leave(hub, manifest, BIG[:have])
    fake.faults.login_page = 2
    folder = download(hub, manifest, told)
    assert (folder / "model.safetensors").read_bytes() == BIG
    assert fake.served[WEIGHTS] == len(BIG) - have
    assert told.notes == [f"{WEIGHTS}: something else was sent; going on."] * 2


def test_a_slow_server(hub: Hub, fake: FakeHub, manifest: Manifest, told: Told) -> None:
    """It takes its time."""
    fake.faults.pause = 0.02
    folder = download(hub, manifest, told)
    assert (folder / "model.safetensors").read_bytes() == BIG


def test_gated(hub: Hub, fake: FakeHub, manifest: Manifest, told: Told) -> None:
    """Without a token there is one line that says what to do; with one it goes on."""
    fake.gated.add(REPO)
    with pytest.raises(HubError, match=rf"accept its terms at {hub.endpoint}/{REPO}.*HF_TOKEN"):
        download(hub, manifest, told)
    fake.token = "secret"
    folder = download(replace(hub, token="secret"), manifest, told)
    assert (folder / "model.safetensors").read_bytes() == BIG


def test_the_token_is_for_the_hub(hub: Hub, fake: FakeHub, manifest: Manifest, told: Told) -> None:
    """Where a file is redirected to, the token is not sent."""
    fake.token = "secret"
    download(replace(hub, token="secret"), manifest, told)
    sent = {path.split("/")[1] for _, path, headers in fake.requests if "authorization" in headers}
    assert sent == {"openai"}


def test_a_full_disk(
    hub: Hub, manifest: Manifest, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the disk fills up while bytes come, there is one line that says so."""

    def full(_: object, done: int) -> None:
        if done:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(told, "receiving", full)
    with pytest.raises(DiskError, match="the disk is full; what was fetched stays"):
        download(hub, manifest, told)


def test_space_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What goes to one disk is added up; the line says what for."""
    needs = [
        Need("the download", tmp_path / "a" / "b", 3_000_000_000),
        Need("the conversion", tmp_path, 2_000_000_000),
    ]
    monkeypatch.setattr(shutil, "disk_usage", _with_free(5_000_000_000))
    check_space(needs)
    monkeypatch.setattr(shutil, "disk_usage", _with_free(4_999_999_999))
    expected = r"3\.0 GB for the download, 2\.0 GB for the conversion, and 5\.0 GB free"
    with pytest.raises(DiskError, match=expected):
        check_space(needs)


def _with_free(nbytes: int) -> Callable[[Path], SimpleNamespace]:
    return lambda _: SimpleNamespace(free=nbytes)


def test_offline(hub: Hub, manifest: Manifest, told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a network the cache serves, hashes and all; with an empty one there is one line."""
    folder = download(hub, manifest, told)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    cached = read_manifest(hub, REPO)
    assert {file.name: file.etag for file in cached.files} == {
        file.name: file.etag for file in manifest.files
    }
    assert download(hub, cached, told) == folder
    empty = replace(hub, cache=hub.cache / "empty")
    with pytest.raises(HubError, match=r"not in the cache at .*empty.*HF_HUB_OFFLINE"):
        read_manifest(empty, REPO)


def test_offline_and_damaged(
    hub: Hub, manifest: Manifest, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is damaged in the cache cannot be fetched anew then, which is said."""
    folder = download(hub, manifest, told)
    (folder / "model.safetensors").resolve().write_bytes(b"x" * len(BIG))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    cached = read_manifest(hub, REPO)
    with pytest.raises(HubError, match="HF_HUB_OFFLINE forbids"):
        download(hub, cached, told)


def test_no_network(hub: Hub, manifest: Manifest, told: Told) -> None:
    """If nobody answers, the cache serves as well; without it the line says what to check."""
    folder = download(hub, manifest, told)
    nowhere = replace(hub, endpoint="http://127.0.0.1:9")
    assert download(nowhere, read_manifest(nowhere, REPO), told) == folder
    with pytest.raises(HubError, match=r"http://127.0.0.1:9 cannot be reached.*check the network"):
        read_manifest(replace(nowhere, cache=hub.cache / "empty"), REPO)


def test_two_at_once(hub: Hub, manifest: Manifest, told: Told) -> None:
    """A file that another run is fetching is left to it."""
    with leave(hub, manifest, BIG[:1000]).open("ab") as partial:
        fcntl.flock(partial, fcntl.LOCK_EX)
        with pytest.raises(HubError, match="another gptoss-mlx is fetching"):
            download(hub, manifest, told)
