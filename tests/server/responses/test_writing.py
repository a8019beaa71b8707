"""Tests of gptoss_mlx.server.responses.writing: what the recorded scenes do not show."""

from __future__ import annotations

from typing import Any

import pytest

from gptoss_mlx.chat import Dropped, Turn
from gptoss_mlx.harmony import Delta, Message
from gptoss_mlx.server.problems import Problem
from gptoss_mlx.server.responses.reading import Context, read
from gptoss_mlx.server.responses.schema import CreateRequest
from gptoss_mlx.server.responses.writing import ResponseWriter, new_id
from gptoss_mlx.tokenizer import Tokenizer

from .checking import check_response, check_stream
from .scenes import (
    CALL,
    CODE,
    FINAL,
    FUNCTION,
    PATCH,
    PYTHON,
    SEARCH,
    SPAWN,
    THINK,
    WEB,
    JsonObject,
    make_writer,
    talk,
)
from .simulated import simulate, turn_events

REQUEST: JsonObject = {"input": "Rain?", "tools": [FUNCTION, CODE, WEB, PATCH, SPAWN]}


@pytest.fixture
def writer(tokenizer: Tokenizer) -> ResponseWriter:
    """A writer that nothing was pushed to."""
    context = Context(builtins=("browser", "python"))
    reading = read(CreateRequest.model_validate(REQUEST), context)
    return make_writer(reading, context, tokenizer)


def delta(text: str, channel: str = "final", recipient: str | None = None) -> Delta:
    """A piece of text."""
    return Delta(channel, recipient, text)


def test_a_failure_ends_what_is_open(writer: ResponseWriter) -> None:
    """What was said stays; complete items are complete, the open one is not."""
    wires = writer.begin()
    wires += writer.push(0, delta("Hm", "analysis"))
    wires += writer.push(0, Message("assistant", "Hm", "analysis"))
    wires += writer.push(0, delta("It ra"))
    wires += writer.fail(Problem(504, "it took too long"))
    check_stream(wires, writer.result())
    result = writer.result()
    assert [item["status"] for item in result["output"]] == ["completed", "incomplete"]
    assert result["error"] == {"code": "server_error", "message": "it took too long"}
    assert wires[-1][0] == "response.failed"


@pytest.mark.parametrize(
    ("recipient", "kind"),
    [("python", "code_interpreter_call"), ("browser.find", "web_search_call")],
)
def test_a_failure_while_a_tool_runs(
    tokenizer: Tokenizer, writer: ResponseWriter, recipient: str, kind: str
) -> None:
    """Its call is incomplete."""
    text = f"<|channel|>analysis to={recipient}<|message|>1<|call|>"
    wires = writer.begin()
    reading = writer._reading  # pyright: ignore[reportPrivateUsage]
    ids = tokenizer.encode_with_special(text)
    for event in list(turn_events(ids, "stop", reading, tokenizer))[:-1]:
        wires += writer.push(0, event)
    wires += writer.fail(Problem(500, "no"))
    check_stream(wires, writer.result())
    (item,) = writer.result()["output"]
    assert (item["type"], item["status"]) == (kind, "incomplete")


def test_a_call_that_breaks_off_in_an_error(writer: ResponseWriter) -> None:
    """Of each kind of call: what came is there."""
    wires = writer.begin()
    recipients = ("functions.f", "functions.apply_patch", "python", "browser.open")
    for recipient in recipients:
        wires += writer.push(0, delta('{"input', "commentary", recipient))
        if recipient != recipients[-1]:
            wires += writer.push(0, Message("assistant", '{"input', "commentary", recipient))
    wires += writer.fail(Problem(500, "no"))
    check_stream(wires, writer.result())
    assert len(writer.result()["output"]) == 4


def test_what_codex_goes_by(writer: ResponseWriter) -> None:
    """It compacts its history at this code; others that OpenAI's types do not have are general."""
    problem = Problem(400, "too long", code="context_length_exceeded")
    wires = writer.begin() + writer.fail(problem)
    check_stream(wires, writer.result(), has_shapes=False)
    assert writer.result()["error"]["code"] == "context_length_exceeded"


@pytest.mark.parametrize("code", ["rate_limit_exceeded", "timeout", None])
def test_codes_of_errors(writer: ResponseWriter, code: str | None) -> None:
    """Only such that OpenAI's clients know."""
    wires = writer.begin() + writer.fail(Problem(500, "no", code=code))
    check_stream(wires, writer.result())
    known = code if code == "rate_limit_exceeded" else "server_error"
    assert writer.result()["error"]["code"] == known


def test_no_turn_at_all(writer: ResponseWriter) -> None:
    """A model that ends before it begins has failed."""
    wires = writer.begin() + writer.end()
    check_stream(wires, writer.result())
    assert writer.result()["status"] == "failed"
    assert writer.result()["usage"] is None


def test_heartbeats(writer: ResponseWriter, tokenizer: Tokenizer) -> None:
    """Events that say again what is known: numbered like others, and adding nothing."""
    wires = writer.begin() + writer.heartbeat()
    reading = writer._reading  # pyright: ignore[reportPrivateUsage]
    ids = tokenizer.encode_with_special(THINK + FINAL)
    for event in turn_events(ids, "stop", reading, tokenizer):
        wires += writer.push(0, event) + writer.heartbeat()
    wires += writer.end()
    check_stream(wires, writer.result())
    beats = [data["response"] for name, data in wires if name == "response.in_progress"]
    assert {beat["status"] for beat in beats} == {"in_progress"}
    assert [len(beat["output"]) for beat in (beats[0], beats[-1])] == [0, 2]
    assert beats[-1]["usage"] is None


def test_dropped_turns_are_no_event(writer: ResponseWriter) -> None:
    """Who asks for truncation hears nothing of it."""
    assert writer.push(0, Dropped(2)) == []


def test_usage_adds_up(tokenizer: Tokenizer) -> None:
    """Over all turns: the second prompt is cached for the most; reasoning is part of the output."""
    played = talk(tokenizer, {"tools": [CODE]}, THINK + PYTHON, FINAL)
    usage = played.writer.result()["usage"]
    stats = [event.stats for event in played.events if isinstance(event, Turn)]
    assert usage["input_tokens"] == sum(len(prompt) for prompt in played.prompts)
    assert usage["input_tokens_details"]["cached_tokens"] > 0
    assert usage["output_tokens"] == sum(s.completion_tokens for s in stats)
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]
    thought = tokenizer.encode_with_special("<|start|>assistant" + THINK.split("<|start|>")[0])
    assert usage["output_tokens_details"]["reasoning_tokens"] == len(thought)
    assert played.writer.tokens == (usage["input_tokens"], usage["output_tokens"])


def test_reasoning_tokens_without_ids(tokenizer: Tokenizer) -> None:
    """A malformed thought is counted by its text."""
    ids = tokenizer.encode_with_special("<|channel|>analysis<|message|>one two<|message|> three")
    writer, _ = simulate(tokenizer, {}, [(ids, "stop")])
    details = writer.result()["usage"]["output_tokens_details"]
    assert details["reasoning_tokens"] == len(tokenizer.encode("one two three"))


def test_items_say_what_they_are(tokenizer: Tokenizer) -> None:
    """Phases of texts, namespaces of calls, queries of searches."""
    preamble = "<|channel|>commentary<|message|>I look.<|end|><|start|>assistant"
    spawn = CALL.replace("functions.f", "functions.agents_spawn")
    played = talk(tokenizer, REQUEST, preamble + SEARCH, FINAL.replace("<|return|>", "") + spawn)
    first, search, final = played.output[:3]
    assert (first["phase"], final["phase"]) == ("commentary", "final_answer")
    assert search["action"] == {"type": "search", "query": "rain", "queries": ["rain"]}
    call = talk(tokenizer, REQUEST, spawn).output[0]
    assert (call["namespace"], call["name"]) == ("agents", "spawn")


def test_names_that_models_give_to_tools(tokenizer: Tokenizer) -> None:
    """`functions.` where it does not belong, or not where it does."""
    odd = [CALL.replace("functions.f", "f"), SEARCH.replace("browser", "functions.browser")]
    types = [talk(tokenizer, REQUEST, text, FINAL).output[0]["type"] for text in odd]
    assert types == ["function_call", "web_search_call"]


def test_a_summary_is_the_thought(tokenizer: Tokenizer) -> None:
    """Where one is asked for, and only there; the content is always there."""
    for request, summaries in (({"reasoning": {"summary": "auto"}}, 1), ({}, 0)):
        item = talk(tokenizer, request, THINK + FINAL).output[0]
        assert item["content"] == [{"type": "reasoning_text", "text": "Hm, São?"}]
        assert [part["text"] for part in item["summary"]] == ["Hm, São?"] * summaries


def test_the_response_says_what_was_used(tokenizer: Tokenizer) -> None:
    """Every setting, as it took effect."""
    request: dict[str, Any] = {
        "instructions": "I.",
        "temperature": 0.5,
        "top_p": 0.25,
        "max_output_tokens": 100,
        "reasoning": {"effort": "xhigh", "summary": "detailed"},
        "metadata": {"a": "b"},
        "tool_choice": {
            "type": "allowed_tools",
            "mode": "auto",
            "tools": [{"type": "function", "name": "f"}],
        },
        "tools": [FUNCTION, {"type": "unheard-of"}],
        "previous_response_id": "resp_0",
        "truncation": "auto",
        "service_tier": "flex",
        "store": False,
        "user": "me",
        "safety_identifier": "s",
        "prompt_cache_key": "k",
        "max_tool_calls": 3,
        "parallel_tool_calls": False,
        "top_logprobs": 1,
        "presence_penalty": 0.5,
        "frequency_penalty": 0.25,
        "text": {"verbosity": "low", "format": {"type": "text"}},
    }
    result = talk(tokenizer, request, FINAL).writer.result()
    check_response(result)
    same = ("instructions", "temperature", "top_p", "max_output_tokens", "metadata", "tool_choice")
    same += ("previous_response_id", "truncation", "store", "user", "text", "top_logprobs")
    same += ("safety_identifier", "prompt_cache_key", "max_tool_calls", "parallel_tool_calls")
    same += ("presence_penalty", "frequency_penalty")
    assert {key: result[key] for key in same} == {key: request[key] for key in same}
    assert result["reasoning"] == {"effort": "high", "summary": "detailed"}
    assert result["service_tier"] == "default"
    assert [tool["name"] for tool in result["tools"]] == ["f"]


def test_logprobs_are_the_answers(tokenizer: Tokenizer) -> None:
    """One for each token of the text, none of headers and thoughts."""
    played = talk(tokenizer, {"top_logprobs": 2}, THINK + FINAL)
    (part,) = played.output[1]["content"]
    tokens = tokenizer.encode("It rains in São Paulo 🫠.")
    assert [entry["bytes"] for entry in part["logprobs"]] == [
        list(tokenizer.decode_bytes([i])) for i in tokens
    ]
    assert all(len(entry["top_logprobs"]) == 2 for entry in part["logprobs"])
    assert talk(tokenizer, {}, FINAL).output[0]["content"][0]["logprobs"] == []


def test_ids_are_new_each_time() -> None:
    """And cannot be guessed."""
    ids = {new_id("resp") for _ in range(100)}
    assert len(ids) == 100
    assert all(len(identity) == len("resp_") + 48 for identity in ids)
