"""Tests of gptoss_mlx.server.responses.reading."""

from __future__ import annotations

from typing import Any

import pytest

from gptoss_mlx.errors import UsageError
from gptoss_mlx.grammar import json_object, json_schema
from gptoss_mlx.harmony import Message, render
from gptoss_mlx.server.problems import Problem
from gptoss_mlx.server.responses.reading import Context, History, Reading, read
from gptoss_mlx.server.responses.schema import CreateRequest
from gptoss_mlx.tokenizer import Tokenizer

USER = {"role": "user", "content": "Hi"}
CALL = {"type": "function_call", "call_id": "c1", "name": "f", "arguments": '{"a": 1}'}
OUTPUT = {"type": "function_call_output", "call_id": "c1", "output": "wet"}
FUNCTION = {"type": "function", "name": "f"}


def understood(
    context: Context | None = None, history: History | None = None, **request: Any
) -> Reading:
    """A request, read."""
    return read(CreateRequest.model_validate(request), context or Context(), history)


def messages(*items: Any, **request: Any) -> list[tuple[str, str | None, str]]:
    """(role, channel, content) of what items become."""
    job = understood(input=list(items), **request).job
    return [(m.role, m.channel, m.content) for m in job.messages]


def test_a_text_is_a_users() -> None:
    """The shortest request."""
    assert understood(input="Hi").job.messages == (Message("user", "Hi"),)


def test_settings() -> None:
    """What is asked of the sampler; the defaults are the models'."""
    params = understood(
        input="Hi", temperature=0, top_p=0.5, max_output_tokens=7, presence_penalty=1
    ).job.params
    assert (params.temperature, params.top_p, params.max_tokens) == (0, 0.5, 7)
    assert (params.presence_penalty, params.logprobs) == (1, None)
    params = understood(input="Hi").job.params
    assert (params.temperature, params.top_p, params.max_tokens) == (1, 1, None)


@pytest.mark.parametrize(
    ("request_", "logprobs"),
    [
        ({"top_logprobs": 3}, 3),
        ({"include": ["message.output_text.logprobs"]}, 0),
        ({"top_logprobs": 0}, None),
        ({"include": ["something.new"]}, None),
    ],
)
def test_logprobs(request_: dict[str, Any], logprobs: int | None) -> None:
    """They are asked for in two ways."""
    assert understood(input="Hi", **request_).job.params.logprobs == logprobs


@pytest.mark.parametrize(
    ("effort", "meant"),
    [
        (None, "medium"),
        ("none", "low"),
        ("minimal", "low"),
        ("low", "low"),
        ("medium", "medium"),
        ("high", "high"),
        ("xhigh", "high"),
        ("max", "high"),
    ],
)
def test_efforts(effort: str | None, meant: str) -> None:
    """Three, of the seven that there are."""
    assert understood(input="Hi", reasoning={"effort": effort}).job.setup.reasoning == meant


def test_leading_instructions_go_to_the_setup() -> None:
    """In their order, after the request's own; later ones stay, so that a cached prompt does."""
    developer = {"role": "developer", "content": [{"type": "input_text", "text": "Two."}]}
    system = {"role": "system", "content": "Three."}
    job = understood(instructions="One.", input=[developer, system, USER, developer]).job
    assert job.setup.instructions == "One.\n\nTwo.\n\nThree."
    assert [m.content for m in job.messages] == ["Hi", "# Instructions\n\nTwo."]
    assert [m.role for m in job.messages] == ["user", "developer"]


def test_own_messages_are_kept_as_they_came() -> None:
    """So that a chain gives the same instructions again, but not the request's own."""
    developer = {"role": "developer", "content": "Two."}
    first = understood(instructions="One.", input=[developer, USER])
    second = understood(history=first.own, input="Go on")
    assert second.job.setup.instructions == "Two."
    assert [m.content for m in second.job.messages] == ["Hi", "Go on"]
    assert [m.content for m in second.own.messages] == ["Go on"]


def test_messages_of_all_roles() -> None:
    """Parts are lines; what a model cannot read is named."""
    parts = [
        {"type": "input_text", "text": "Look:"},
        {"type": "input_image", "image_url": "data:image/png;base64,x"},
        {"type": "input_file", "filename": "f.pdf", "file_data": "x"},
        {"type": "input_audio"},
    ]
    answer = {"role": "assistant", "content": [{"type": "output_text", "text": "Nice."}]}
    refusal = {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]}
    text = "Look:\n[an image, which this model cannot see]\n"
    text += "[the file 'f.pdf', which cannot be read here]\n"
    assert messages({"role": "user", "content": parts}, answer, refusal) == [
        ("user", None, text),
        ("assistant", "final", "Nice."),
        ("assistant", "final", "No."),
    ]


@pytest.mark.parametrize(
    ("phase", "following", "channel"),
    [
        ("commentary", USER, "commentary"),
        ("final_answer", CALL, "final"),
        (None, CALL, "commentary"),
        (None, USER, "final"),
    ],
)
def test_preambles(phase: str | None, following: dict[str, Any], channel: str) -> None:
    """The phase says it; without one, what comes before a call is a preamble."""
    said = {"role": "assistant", "content": "I look.", "phase": phase}
    assert messages(USER, said, following)[1] == ("assistant", channel, "I look.")


@pytest.mark.parametrize(
    ("output", "text"),
    [
        ("wet", "wet"),
        ([{"type": "input_text", "text": "a"}, {"type": "input_text", "text": "b"}], "a\nb"),
        ({"a": "ü"}, '{"a": "ü"}'),
        ([1], "[1]"),
        (None, "null"),
    ],
)
def test_outputs_of_functions(output: Any, text: str) -> None:
    """Text, parts, or any JSON: it answers the call."""
    job = understood(input=[USER, CALL, {**OUTPUT, "output": output}]).job
    call, result = job.messages[1:]
    assert (call.recipient, call.content) == ("functions.f", '{"a": 1}')
    assert result == Message("tool", text, "commentary", "assistant", name="functions.f")


def test_calls_are_rendered_as_harmony_has_them(tokenizer: Tokenizer) -> None:
    """The header that the models were trained to read."""
    job = understood(input=[USER, CALL, OUTPUT], tools=[FUNCTION]).job
    text = tokenizer.decode(render(job.setup, job.messages, tokenizer))
    call = "<|start|>assistant to=functions.f<|channel|>commentary <|constrain|>json<|message|>"
    assert call + '{"a": 1}<|call|>' in text
    assert "<|start|>functions.f to=assistant<|channel|>commentary<|message|>wet<|end|>" in text


def test_an_output_without_a_call() -> None:
    """The client is told which one."""
    with pytest.raises(Problem) as caught:
        understood(input=[USER, OUTPUT])
    assert (caught.value.status, caught.value.param) == (400, "input.1.call_id")
    call = Message("assistant", "{}", "analysis", "functions.f")
    job = understood(history=History((call,), {"c1": call}), input=[OUTPUT]).job
    assert job.messages[-1].channel == "analysis"


def test_reasoning_without_its_ids() -> None:
    """The text, of it the summary where there is nothing else; what is empty or foreign goes."""
    part = {"type": "reasoning_text", "text": "Hm."}
    items: list[dict[str, Any]] = [
        {"type": "reasoning", "content": [part], "summary": []},
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "Short."}]},
        {"type": "reasoning", "summary": [], "encrypted_content": "gAAAAABnot-ours"},
    ]
    assert messages(*items, CALL) == [
        ("assistant", "analysis", "Hm."),
        ("assistant", "analysis", "Short."),
        ("assistant", "commentary", '{"a": 1}'),
    ]


def test_code_that_ran_elsewhere() -> None:
    """With its output it is worth reading; searches without their results are not."""
    code = {"type": "code_interpreter_call", "id": "ci", "code": "6 * 7"}
    logs = [{"type": "logs", "logs": "42"}]
    search = {"type": "web_search_call", "id": "ws", "action": {"type": "search"}}
    assert messages(USER, code, {**code, "outputs": logs}, search)[1:] == [
        ("assistant", "analysis", "6 * 7"),
        ("tool", "analysis", "42"),
    ]


def test_what_is_unknown_is_ignored() -> None:
    """Items and tools that nobody has heard of."""
    items = [{"type": "news", "x": 1}, {"type": 7}, {}, USER]
    tools = [{"type": "telepathy"}, {"type": "mcp", "server_label": "x"}, {}]
    reading = understood(input=items, tools=tools)
    assert [m.content for m in reading.job.messages] == ["Hi"]
    assert reading.tools.echo == ()


def test_references_to_stored_items() -> None:
    """They are what they refer to; one that is nowhere is named."""
    found = {"msg_1": {"id": "msg_1", "type": "message", "role": "user", "content": "Hi"}}
    context = Context(find_item=found.get)
    for item in ({"type": "item_reference", "id": "msg_1"}, {"id": "msg_1"}):
        assert understood(context, input=[item]).job.messages == (Message("user", "Hi"),)
    with pytest.raises(Problem, match="'msg_2'"):
        understood(context, input=[{"id": "msg_2"}])


def test_formats() -> None:
    """What is enforced, and what the model is told of it."""
    schema = {"type": "object", "properties": {"a": {"type": "string"}}}
    named = {"type": "json_schema", "name": "n", "schema": schema, "description": "D."}
    reading = understood(input="Hi", text={"format": named}, instructions="I.")
    assert reading.job.answer == json_schema(schema, strict=False)
    instructions = reading.job.setup.instructions or ""
    assert instructions.startswith("I.\n\n# Response Formats\n\n## n\n\n// D.\n{")
    strict = {"type": "json_schema", "schema": schema, "strict": True}
    assert understood(input="Hi", text={"format": strict}).job.answer == json_schema(schema)
    assert understood(input="Hi", text={"format": {"type": "json_object"}}).job.answer == (
        json_object()
    )
    assert understood(input="Hi", text={"format": {"type": "text"}}).job.answer is None


@pytest.mark.parametrize(
    ("request_", "param"),
    [
        ({"input": ""}, "input"),
        ({"input": [{"type": "news"}]}, "input"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"prompt": {"id": "p"}}, "prompt"),
        ({"background": True, "store": False}, "background"),
        ({"text": {"format": {"type": "json_schema"}}}, "text.format.schema"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": {"type": "function", "name": "g"}}, "tool_choice"),
    ],
)
def test_what_cannot_be(request_: dict[str, Any], param: str) -> None:
    """The parameter is named."""
    with pytest.raises(Problem) as caught:
        understood(None, None, **{"input": "Hi", **request_})
    assert (caught.value.status, caught.value.param) == (400, param)


def test_schemas_that_cannot_be_used() -> None:
    """They are the client's fault, too."""
    with pytest.raises(UsageError):
        understood(input="Hi", tools=[FUNCTION, FUNCTION])
    huge = {"type": "json_schema", "schema": {"description": "x", "enum": ["x" * 2_000_000]}}
    with pytest.raises(UsageError):
        understood(input="Hi", text={"format": huge})


def test_truncation() -> None:
    """Only where it is asked for."""
    assert understood(input="Hi", truncation="auto").drops_oldest
    assert not understood(input="Hi", truncation="disabled").drops_oldest
    assert not understood(input="Hi").drops_oldest


def test_the_date_is_the_servers() -> None:
    """It stands in the system message."""
    assert understood(Context(date="2026-11-22"), input="Hi").job.setup.date == "2026-11-22"


def test_as_codex_asks() -> None:
    """The shape of its requests, as it sends them on its second turn."""
    agent: dict[str, Any] = {
        "type": "function",
        "name": "close_agent",
        "strict": False,
        "parameters": {},
    }
    reading = understood(
        Context(builtins=("browser",)),
        model="gpt-oss-20b",
        stream=True,
        store=False,
        include=["reasoning.encrypted_content"],
        parallel_tool_calls=True,
        tool_choice="auto",
        reasoning={"summary": "auto"},
        prompt_cache_key="0",
        client_metadata={"x-codex-window-id": "0"},
        tools=[
            {"type": "function", "name": "exec_command", "strict": False, "parameters": {}},
            {"type": "namespace", "name": "agents", "description": "", "tools": [agent]},
            {"type": "web_search", "external_web_access": True},
        ],
        input=[
            {"type": "message", "id": "msg_1", "role": "developer", "content": "You code."},
            {"type": "message", "id": "msg_2", "role": "user", "content": "Go."},
            {
                "type": "reasoning",
                "id": "rs_1",
                "summary": [],
                "content": [{"type": "reasoning_text", "text": "Hm."}],
                "encrypted_content": "lost",
            },
            {**CALL, "id": "fc_1", "status": "completed", "name": "exec_command"},
            {**OUTPUT, "id": "fco_1"},
        ],
    )
    setup = reading.job.setup
    assert setup.instructions == "You code."
    assert [f.name for f in setup.functions] == ["exec_command", "agents_close_agent"]
    assert reading.job.builtins == ("browser",)
    assert [m.role for m in reading.job.messages] == ["user", "assistant", "assistant", "tool"]
