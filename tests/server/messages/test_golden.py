"""Recorded messages: their events are those on file, and keep to what all streams keep to."""

from __future__ import annotations

import json

import pytest

from gptoss_mlx.tokenizer import Tokenizer

from .checking import check_blocks, check_stream
from .make_golden import FOLDER
from .scenes import SCENES, run


def test_every_scene_is_on_file() -> None:
    """And nothing else is."""
    assert {path.stem for path in FOLDER.glob("*.json")} == set(SCENES)


@pytest.mark.parametrize("name", SCENES)
def test_golden_events(tokenizer: Tokenizer, name: str) -> None:
    """The events are those on file (make_golden.py records anew), and add up to the message."""
    recorded = json.loads((FOLDER / f"{name}.json").read_text("utf-8"))
    played = run(SCENES[name], tokenizer)
    assert played.data == recorded
    if SCENES[name].fails_after is None:
        check_stream(played.wires, played.writer.result())


def test_an_error_ends_a_stream(tokenizer: Tokenizer) -> None:
    """After it nothing comes; what was open stays so."""
    played = run(SCENES["error"], tokenizer)
    *before, error = played.data
    assert error == {"type": "error", "error": {"type": "overloaded_error", "message": "no memory"}}
    assert before[-1]["type"] == "content_block_delta"
    with pytest.raises(AssertionError):
        check_blocks(before[1:], played.content)


def test_what_is_thought_counts_as_output(tokenizer: Tokenizer) -> None:
    """Hidden or not, it is among the output tokens, and counted apart."""
    shown = run(SCENES["thinking-and-text"], tokenizer).writer.result()["usage"]
    hidden = run(SCENES["text"], tokenizer).writer.result()["usage"]
    assert shown["output_tokens"] == hidden["output_tokens"]
    thought = shown["output_tokens_details"]["thinking_tokens"]
    assert 0 < thought < shown["output_tokens"]
    assert hidden["output_tokens_details"]["thinking_tokens"] == thought
