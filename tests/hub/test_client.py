"""Asking the Hub: what it holds, and its refusals in one line."""

from __future__ import annotations

from dataclasses import replace

import httpx2
import pytest
from huggingface_hub import constants

from gptoss_mlx.errors import HubError, UsageError
from gptoss_mlx.hub import Hub, Source, reach, read_manifest
from gptoss_mlx.hub.client import patiently

from .server import COMMIT, FakeHub, Repository

REPO = "openai/gpt-oss-20b"


def test_a_manifest(hub: Hub) -> None:
    """The files with their sizes and hashes, at one commit; small ones come first."""
    manifest = read_manifest(hub, REPO)
    assert (manifest.repo, manifest.commit, manifest.source) == (REPO, COMMIT, "original")
    assert [(file.name, len(file.etag or "")) for file in manifest.files] == [
        ("original/config.json", 40),
        ("tokenizer.json", 64),
        ("original/model.safetensors", 64),
    ]
    assert manifest.weights_bytes == 1 << 20


def test_another_source(hub: Hub) -> None:
    """--source hf takes the files at the top."""
    manifest = read_manifest(hub, REPO, source="hf")
    assert [file.name for file in manifest.files if file.is_weights] == [
        "model-00000-of-00001.safetensors"
    ]


def test_a_ready_made_one(hub: Hub, fake: FakeHub) -> None:
    """A repository with the tag of MLX holds what needs no converting."""
    files = {"config.json": b"{}", "model.safetensors": b"x"}
    fake.repositories["mlx-community/m"] = Repository(files, tags=("mlx", "safetensors"))
    assert read_manifest(hub, "mlx-community/m").source == "mlx"


def test_a_commit(hub: Hub) -> None:
    """--revision with a commit."""
    assert read_manifest(hub, REPO, COMMIT).revision == COMMIT


@pytest.mark.parametrize(
    ("repo", "revision", "source", "expected"),
    [
        ("openai/gpt-oss-21b", "main", None, "has no repository openai/gpt-oss-21b, or it is priv"),
        (REPO, "v9", None, "openai/gpt-oss-20b has no revision 'v9'"),
        ("a/empty", "main", None, "a/empty has at its top no config.json and safetensors"),
        ("a/empty", "main", "original", "a/empty has no folder original/ with config.json"),
    ],
)
def test_what_is_not_there(
    hub: Hub, fake: FakeHub, repo: str, revision: str, source: Source | None, expected: str
) -> None:
    """A repository, a revision or a source that does not exist is named, in one line."""
    fake.repositories["a/empty"] = Repository({"README.md": b""})
    with pytest.raises(HubError) as raised:
        read_manifest(hub, repo, revision, source)
    assert expected in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_wrong_token(hub: Hub) -> None:
    """It is said that the token is what is wrong."""
    with pytest.raises(HubError, match="does not know the token"):
        read_manifest(replace(hub, token="hf_wrong"), REPO)


def test_no_name_of_a_repository(hub: Hub) -> None:
    """What cannot be one is an error of usage."""
    with pytest.raises(UsageError, match="is no repository"):
        read_manifest(hub, "a/b c")


def test_a_login_page(hub: Hub, fake: FakeHub) -> None:
    """What answers in place of the Hub is recognised."""
    fake.faults.login_page = 1
    with pytest.raises(HubError, match=r"does not answer as the Hub does: .*log in"):
        read_manifest(hub, REPO)


def test_too_many_requests(hub: Hub, fake: FakeHub) -> None:
    """They are waited out, and if that does not help, said."""
    fake.faults.api_statuses = [429] * 9
    with pytest.raises(HubError, match="too many requests"):
        read_manifest(hub, REPO)
    assert len(fake.faults.api_statuses) == 9 - 1 - hub.patience


def test_no_connection_is_not_waited_for() -> None:
    """Where nobody answers at all, it is not asked again."""
    calls: list[int] = []

    def call() -> None:
        calls.append(1)
        raise httpx2.ConnectError("nobody there")

    with pytest.raises(httpx2.ConnectError):
        patiently(Hub(pause=0), call)
    assert calls == [1]


def test_reach(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether the Hub answers."""
    reach(hub)
    with pytest.raises(HubError, match="cannot be reached"):
        reach(replace(hub, endpoint="http://127.0.0.1:9"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(HubError, match="HF_HUB_OFFLINE"):
        reach(hub)
