"""Chunks: as they always were, as the completion says, and nothing that is not for the client."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from gptoss_mlx.chat import Dropped, Event, Turn
from gptoss_mlx.harmony import Delta, Message, StreamParser
from gptoss_mlx.sequence import GenerationStats, Token
from gptoss_mlx.server.chat_completions.writing import ChatWriter, random_id
from gptoss_mlx.server.problems import Problem
from gptoss_mlx.tokenizer import Tokenizer
from gptoss_mlx.tools.browser.page import Page

from .make_golden import GOLDEN
from .streams import (
    ANSWER,
    CASES,
    PREAMBLE,
    THINK,
    TWO_CALLS,
    case,
    events_of,
    folded,
    reading_of,
    replaying,
    writer_of,
    written,
)


@pytest.mark.parametrize("name", CASES)
def test_golden(name: str, tokenizer: Tokenizer) -> None:
    """Order, ids, indices and texts are what they were."""
    assert case(name, tokenizer) == json.loads(GOLDEN.read_text())[name]


def agree(chunks: list[dict[str, Any]], completion: dict[str, Any]) -> None:
    """The chunks add up to the completion."""
    (choice,) = completion["choices"]
    client = folded(chunks)
    message = {**client["message"], "content": client["message"]["content"] or None}
    assert {**choice["message"], "content": choice["message"]["content"] or None} == message
    assert choice["finish_reason"] == client["finish_reason"]
    assert client["tokens"] == ((choice["logprobs"] or {}).get("content") or [])
    assert {chunk["id"] for chunk in chunks} == {completion["id"]}
    usages = [chunk["usage"] for chunk in chunks if chunk.get("usage")]
    assert usages == [completion["usage"]]


def cut(ids: Sequence[int], limit: int, tokenizer: Tokenizer) -> list[Event]:
    """The events of a reply that was cut off after so many tokens, as a chat gives them."""
    parser = StreamParser(tokenizer)
    events: list[Event] = []
    for i in ids[:limit]:
        events += [Token(i, -0.5), *parser.push(i)]
    events += parser.close()
    reason = "length" if limit < len(ids) else "stop"
    return [*events, Turn(tuple(parser.messages), reason, GenerationStats(5, 0, limit))]


@pytest.mark.parametrize("script", [THINK + PREAMBLE + TWO_CALLS, THINK + PREAMBLE + ANSWER])
def test_cut_anywhere_the_chunks_add_up(script: str, tokenizer: Tokenizer) -> None:
    """Whatever the limit is, stream and completion say the same, and usage what was drawn."""
    reading = reading_of({"logprobs": True, "top_logprobs": 0})
    ids = tokenizer.encode_with_special(script)
    for limit in range(1, len(ids) + 1):
        chunks, completion = written(reading, cut(ids, limit, tokenizer), tokenizer)
        agree(chunks, completion)
        usage = completion["usage"]
        assert usage["completion_tokens"] == limit
        assert usage["completion_tokens_details"]["reasoning_tokens"] <= limit


@pytest.mark.parametrize("name", CASES)
def test_nothing_leaks(name: str, tokenizer: Tokenizer) -> None:
    """No marker, no call of our own tools or its result, nothing said in others' names."""
    text = json.dumps(case(name, tokenizer)["completion"])
    for hidden in ("<|", "python", "1 + 1", "nothing", '"B"', "user"):
        assert hidden not in text


@pytest.mark.parametrize("name", CASES)
def test_logprobs_are_of_the_content(name: str, tokenizer: Tokenizer) -> None:
    """Their texts are the content; the gap between two messages is nobody's token."""
    choice = case(name, tokenizer)["completion"]["choices"][0]
    if choice["logprobs"] is None:
        assert not CASES[name][0].get("logprobs")
        return
    spelled = bytes(b for entry in choice["logprobs"]["content"] for b in entry["bytes"])
    content = choice["message"]["content"].replace("\n\n", "")
    assert spelled.decode() == content.removesuffix(" "), "the stop begins within the token ` va`"


def test_usage_adds_up_over_turns(tokenizer: Tokenizer) -> None:
    """A tool of the server's makes two turns of one answer."""
    extra, scripts = CASES["tool of the server"]
    reading = reading_of(extra)
    with replaying(scripts, tokenizer) as engine:
        events = events_of(reading, engine, tokenizer)
    usage = written(reading, events, tokenizer)[1]["usage"]
    turns = [event.stats for event in events if isinstance(event, Turn)]
    assert len(turns) == 2
    assert usage["prompt_tokens"] == sum(stats.prompt_tokens for stats in turns)
    assert usage["completion_tokens"] == sum(stats.completion_tokens for stats in turns)
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert usage["prompt_tokens_details"]["cached_tokens"] == turns[1].cached_tokens > 0


def test_several_choices_have_a_place_each(tokenizer: Tokenizer) -> None:
    """However their events are mixed; the prompt counts once."""
    reading = reading_of({"n": 2})
    writer = writer_of(reading, tokenizer)
    wires = writer.begin()
    for number in (1, 0, 1):
        wires += writer.push(number, Delta("final", None, str(number)))
    for number, text in enumerate(("0", "11")):
        message = Message("assistant", text, "final")
        wires += writer.push(number, message)
        wires += writer.push(number, Turn((message,), "stop", GenerationStats(10, 4, 3)))
    wires += writer.end()
    choices = writer.result()["choices"]
    assert [choice["message"]["content"] for choice in choices] == ["0", "11"]
    for number in (0, 1):
        own = [d for _, d in wires if d["choices"] and d["choices"][0]["index"] == number]
        assert folded(own)["message"]["content"] == choices[number]["message"]["content"]
    usage = writer.result()["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (10, 6)
    assert writer.tokens == (10, 6)


def test_each_choice_ends_as_it_does(tokenizer: Tokenizer) -> None:
    """One at its limit, one with a call."""
    writer = writer_of(reading_of({"n": 2}), tokenizer)
    cut = Message("assistant", "Wel", "final")
    call = Message("assistant", "{}", "commentary", "functions.my_tool")
    for number, message in enumerate((cut, call)):
        writer.push(number, message)
    writer.push(0, Turn((cut,), "length", GenerationStats(10, 0, 3)))
    writer.push(1, Turn((call,), "tool_calls", GenerationStats(10, 0, 3)))
    ends = [data["choices"][0]["finish_reason"] for _, data in writer.end()[:2]]
    assert ends == ["length", "tool_calls"]
    assert [choice["finish_reason"] for choice in writer.result()["choices"]] == ends


def test_citations_become_links(tokenizer: Tokenizer) -> None:
    """However the text comes in pieces; what only looks like one stays, in its message."""
    page = Page("Oslo", "https://yr.no/oslo", "It rains.")
    reading = reading_of({})
    writer = ChatWriter(reading, "m", tokenizer, 0, sources=[lambda _: page])
    wires = writer.begin()
    for channel, text in (("commentary", "Wait 【0"), ("final", "【0†L1】Rain【0†L1】.")):
        for letter in text:
            wires += writer.push(0, Delta(channel, None, letter))
        wires += writer.push(0, Message("assistant", text, channel))
    wires += writer.end()
    content = writer.result()["choices"][0]["message"]["content"]
    link = "([yr.no](https://yr.no/oslo))"
    assert content == f"Wait 【0\n\n{link}Rain {link}."
    assert folded([data for _, data in wires])["message"]["content"] == content
    annotations: list[dict[str, Any]] = writer.result()["choices"][0]["message"]["annotations"]
    deltas = [choice["delta"] for _, data in wires for choice in data["choices"]]
    assert [delta["annotations"] for delta in deltas if "annotations" in delta] == [annotations]
    for annotation in annotations:
        assert annotation["type"] == "url_citation"
        cited = annotation["url_citation"]
        assert (cited["url"], cited["title"]) == ("https://yr.no/oslo", "Oslo")
        assert content[cited["start_index"] : cited["end_index"]] == link
    assert len(annotations) == 2


def test_a_heartbeat_says_nothing(tokenizer: Tokenizer) -> None:
    """It is a chunk like others, and changes no completion."""
    writer = writer_of(reading_of({}), tokenizer)
    before = writer.result()
    ((name, chunk),) = writer.heartbeat()
    assert name is None
    assert chunk["choices"] == [{"index": 0, "delta": {}, "logprobs": None, "finish_reason": None}]
    assert writer.result() == before
    assert writer.push(0, Dropped(1)) == []


def test_a_failure_is_an_error_event(tokenizer: Tokenizer) -> None:
    """In the shape that clients raise as an exception."""
    writer = writer_of(reading_of({}), tokenizer)
    assert writer.fail(Problem(500, "broken")) == [
        (
            None,
            {"error": {"message": "broken", "type": "server_error", "param": None, "code": None}},
        )
    ]


def test_ids_are_new_each_time() -> None:
    """Calls of one turn, and of different requests, cannot be confused."""
    ids = {random_id("call_") for _ in range(100)}
    assert len(ids) == 100
    assert all(i.startswith("call_") and len(i) == 29 for i in ids)
