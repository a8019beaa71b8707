"""Recorded responses: their events are those on file, and keep to what all streams keep to."""

from __future__ import annotations

import json

import pytest
from openai import omit
from openai.lib.streaming.responses._responses import ResponseStreamState
from openai.types.responses import ResponseCompletedEvent

from gptoss_mlx.tokenizer import Tokenizer

from .checking import EVENTS, check_stream
from .make_golden import FOLDER, golden_run
from .scenes import SCENES, Run


def test_every_scene_is_on_file() -> None:
    """And nothing else is."""
    assert {path.stem for path in FOLDER.glob("*.json")} == set(SCENES)


@pytest.mark.parametrize("name", SCENES)
def test_golden_events(tokenizer: Tokenizer, name: str) -> None:
    """The events are those on file (make_golden.py records anew), and add up to the response.

    The history that is stored is the conversation as the chat has it.
    """
    recorded = json.loads((FOLDER / f"{name}.json").read_text("utf-8"))
    played = golden_run(SCENES[name], tokenizer)
    assert [data for _, data in played.wires] == recorded
    added = played.writer.history.messages
    assert [*played.reading.job.messages, *added] == played.chat.messages
    if name != "open-responses":  # whose names OpenAI's types do not have
        check_stream(played.wires, played.writer.result())
        check_with_openai(played)


def check_with_openai(played: Run) -> None:
    """What OpenAI's client makes of the events is the response."""
    state: ResponseStreamState[object] = ResponseStreamState(input_tools=[], text_format=omit)
    events = [EVENTS[data["type"]].model_validate(data) for _, data in played.wires]
    for event in events:
        state.handle_event(event)  # pyright: ignore[reportArgumentType]
    if not isinstance(events[-1], ResponseCompletedEvent):
        return
    parsed = state._completed_response  # pyright: ignore[reportPrivateUsage]
    assert parsed is not None
    assert parsed.output_text == events[-1].response.output_text
    assert len(parsed.output) == len(played.output)


def test_open_responses_renames_only(tokenizer: Tokenizer) -> None:
    """The names of that specification differ for reasoning; all else is as without."""
    plain = golden_run(SCENES["answer"], tokenizer)
    other = golden_run(SCENES["open-responses"], tokenizer)
    renamed = [n.replace("reasoning_text", "reasoning") for n in plain.names()]
    assert other.names() == renamed
    assert other.names("reasoning.delta")
    assert other.writer.terminator == b"data: [DONE]\n\n"
    assert plain.writer.terminator == b""
