"""Recorded completions: the events on file, and wherever a stream ends, a prefix of them."""

from __future__ import annotations

import json

import pytest

from gptoss_mlx.harmony import parse
from gptoss_mlx.tokenizer import Tokenizer

from .completions import checked_parse
from .make_golden import FOLDER, events_of

GOLDEN = {path.stem: json.loads(path.read_text("utf-8")) for path in sorted(FOLDER.glob("*.json"))}


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_events(tokenizer: Tokenizer, name: str) -> None:
    """The events of recorded completions are those on file; make_golden.py records anew."""
    assert events_of(GOLDEN[name]["ids"], tokenizer) == GOLDEN[name]["events"]


@pytest.mark.parametrize("name", GOLDEN)
def test_cut_off_completions_are_prefixes(tokenizer: Tokenizer, name: str) -> None:
    """Wherever a stream ends, each message holds a prefix of what it would have held."""
    ids: list[int] = GOLDEN[name]["ids"]
    whole = parse(ids, tokenizer)
    for length in range(len(ids)):
        cut = checked_parse(ids[:length], tokenizer)
        assert len(cut) <= len(whole)
        for part, message in zip(cut, whole, strict=False):
            assert message.content.startswith(part.content.rstrip("\ufffd")), length
            assert part.recipient == message.recipient, length
