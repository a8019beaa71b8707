"""Tests of gptoss_mlx.server.sealing."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from gptoss_mlx.errors import DiskError
from gptoss_mlx.harmony import Message
from gptoss_mlx.server.sealing import Seal, kept_key, message_from_json, message_to_json

MESSAGE = Message("assistant", "Hm \ud83e São 🫠", "analysis", ids=(200_006, 1, 2, 200_007))
PLAIN = Message("tool", "", "commentary", "assistant", None, "functions.f")


@pytest.mark.parametrize("message", [MESSAGE, PLAIN])
def test_what_is_sealed_comes_back(message: Message) -> None:
    """With its ids, for who has the key."""
    opened = Seal(b"key").open(Seal(b"key").seal(message))
    assert opened == message
    assert opened is not None
    assert opened.ids == message.ids


def test_other_keys_open_nothing() -> None:
    """Keys differ where none is given."""
    assert Seal(b"other").open(Seal(b"key").seal(MESSAGE)) is None
    assert Seal().open(Seal().seal(MESSAGE)) is None


def test_changed_texts_are_no_seals() -> None:
    """Whatever byte is changed, and whatever a client sends instead."""
    seal = Seal(b"key")
    data = base64.urlsafe_b64decode(seal.seal(PLAIN))
    for place in range(len(data)):
        changed = bytearray(data)
        changed[place] ^= 1
        assert seal.open(base64.urlsafe_b64encode(changed).decode()) is None
    for text in ("", "gAAAAA==", "a", "äöü", "\ud83e", "=" * 100, seal.seal(PLAIN)[:-4]):
        assert seal.open(text) is None


def test_it_is_not_much_longer_than_the_text() -> None:
    """Ids included: some bytes a token."""
    message = Message("assistant", "word " * 1000, "analysis", ids=tuple(range(1000)))
    assert len(Seal().seal(message)) < 6_000


def test_json_has_no_empty_fields() -> None:
    """What is None is left out, and is None again."""
    assert message_to_json(PLAIN) == {
        "role": "tool",
        "content": "",
        "channel": "commentary",
        "recipient": "assistant",
        "name": "functions.f",
    }
    assert message_from_json(message_to_json(PLAIN)) == PLAIN


def test_a_kept_key(tmp_path: Path) -> None:
    """Is made once, for its owner only, and opens what was sealed before a restart."""
    path = tmp_path / "store.key"
    sealed = Seal(kept_key(path)).seal(MESSAGE)
    assert Seal(kept_key(path)).open(sealed) == MESSAGE
    assert path.stat().st_mode & 0o777 == 0o600
    assert [p.name for p in tmp_path.iterdir()] == ["store.key"]
    assert kept_key(tmp_path / "other.key") != kept_key(path)


def test_a_file_that_is_no_key(tmp_path: Path) -> None:
    """Is not taken for one, nor overwritten."""
    path = tmp_path / "store.key"
    path.write_bytes(b"short")
    with pytest.raises(DiskError, match="holds no key: delete it"):
        kept_key(path)
    assert path.read_bytes() == b"short"
    with pytest.raises(DiskError, match="cannot keep a key"):
        kept_key(tmp_path / "none" / "store.key")
