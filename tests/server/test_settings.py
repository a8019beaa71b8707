"""Who may be let in without a key."""

from __future__ import annotations

import pytest

from gptoss_mlx.errors import UsageError
from gptoss_mlx.server.settings import Settings, is_loopback


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.1.5", False),
        ("localhost.evil.com", False),
    ],
)
def test_loopback(host: str, expected: bool) -> None:
    """What only this machine reaches."""
    assert is_loopback(host) == expected


def test_others_need_a_key() -> None:
    """An address that others reach needs a key, or somebody who says that it needs none."""
    with pytest.raises(UsageError, match="--api-key KEY, or --open"):
        Settings("m", "0.0.0.0")
    assert Settings("m", "0.0.0.0", ("k",)).api_keys
    assert Settings("m", "0.0.0.0", is_open=True).is_open


def test_an_empty_key_is_none() -> None:
    """A variable that is not set must not become a key that everybody knows."""
    with pytest.raises(UsageError, match="the API key is empty"):
        Settings("m", api_keys=("",))


@pytest.mark.parametrize("origin", ["a.b", "https://a.b/", "https://", "", "null"])
def test_origins(origin: str) -> None:
    """One that no browser ever sends is a slip."""
    with pytest.raises(UsageError, match="an origin is https://NAME"):
        Settings("m", origins=(origin,))
    for right in ("*", "https://a.b", "http://localhost:3000", "app://obsidian.md"):
        assert Settings("m", origins=(right,)).origins


def test_keys_are_not_shown() -> None:
    """Settings may be logged."""
    assert "secret" not in repr(Settings("m", api_keys=("secret",)))
