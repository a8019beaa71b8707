"""Responses that nobody waits for, their events, and what is left where a client goes away."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from itertools import islice
from typing import Any

import httpx2 as httpx
import openai
import pytest
from helpers import ReplayModel
from openai import OpenAI
from openai.types.responses import Response

from gptoss_mlx.server.responses.background import EventLog, EventLogs
from gptoss_mlx.tokenizer import Tokenizer
from server.conftest import EndlessModel, MakeServed, live, soon

from .checking import check_response, check_stream
from .conftest import URL, MakeHttp, SlowModel, client_of, events_of
from .scenes import FINAL, THINK

TEXT = "It rains in São Paulo 🫠."
STREAMED: dict[str, Any] = {"input": "Rain?", "background": True, "stream": True}


@pytest.fixture
def slow(tokenizer: Tokenizer) -> SlowModel:
    """Says `word` for ten seconds, and answers the next one at once."""
    long = FINAL.replace(TEXT, "word " * 500)
    return SlowModel(*map(tokenizer.encode_with_special, (long, FINAL)))


def has_said(model: ReplayModel, num_tokens: int) -> bool:
    """Whether the model has come so far with its first reply."""
    return bool(model.prompts) and len(model.seen[0]) > len(model.prompts[0]) + num_tokens


def ended(client: OpenAI, identity: str) -> Response:
    """A response when it is worked on no more."""

    def has_ended() -> bool:
        return client.responses.retrieve(identity).status not in ("queued", "in_progress")

    assert soon(has_ended)
    return client.responses.retrieve(identity)


def test_in_the_background(http: MakeHttp) -> None:
    """Queued at once, complete later, and a part of a conversation then."""
    client = client_of(http(FINAL, FINAL))
    response = client.responses.create(model="m", input="Rain?", background=True)
    assert (response.status, response.output) == ("queued", [])
    assert ended(client, response.id).output_text == TEXT
    assert client.responses.cancel(response.id).status == "completed"
    following = client.responses.create(model="m", input="?", previous_response_id=response.id)
    assert following.output_text == TEXT


def test_cancelled_in_the_background(http: MakeHttp, slow: SlowModel) -> None:
    """What had come by then stays; the model is free again."""
    client = client_of(http(model=slow))
    response = client.responses.create(model="m", input="Rain?", background=True)
    assert soon(lambda: client.responses.retrieve(response.id).status == "in_progress")
    assert soon(lambda: has_said(slow, 20))
    assert client.responses.cancel(response.id).status == "cancelled"
    assert soon(lambda: client.responses.retrieve(response.id).output_text.startswith("word "))
    assert client.responses.create(model="m", input="Rain?").output_text == TEXT
    assert client.responses.retrieve(response.id).status == "cancelled"


def test_failed_in_the_background(http: MakeHttp) -> None:
    """It says why."""
    client = client_of(http())
    response = client.responses.create(model="m", input="word " * 70_000, background=True)
    failed = client.responses.with_raw_response.retrieve(ended(client, response.id).id)
    body: Any = failed.http_response.json()
    assert (body["status"], body["error"]["code"]) == ("failed", "context_length_exceeded")


def test_streamed_in_the_background(http: MakeHttp) -> None:
    """The events are those of any stream, and there for who comes back, from where they like."""
    server = http(THINK + FINAL)
    events = events_of(server.post(URL, json=STREAMED).text)
    final = events[-1][1]["response"]
    check_stream(events, final)
    assert check_response(final).output_text == TEXT
    url = f"{URL}/{final['id']}"
    assert server.get(url).json() == final
    assert events_of(server.get(f"{url}?stream=true").text) == events
    assert events_of(server.get(f"{url}?stream=true&starting_after=4").text) == events[5:]
    last = len(events) - 1
    assert server.get(f"{url}?stream=true&starting_after={last}").text == ""
    assert server.get(f"{url}?stream=true&starting_after=x").status_code == 400
    others = server.get(f"{url}?stream=true", headers={"x-api-key": "yours"})
    assert others.status_code == 404
    server.delete(url)
    assert server.get(f"{url}?stream=true").status_code == 404


def test_openai_python_comes_back(http: MakeHttp) -> None:
    """As its documentation has it: some events, and the others later."""
    client = client_of(http(THINK + FINAL))
    with client.responses.create(model="m", input="?", background=True, stream=True) as stream:
        first = list(islice(stream, 3))
    assert first[0].type == "response.created"
    identity = first[0].response.id
    number = first[-1].sequence_number
    rest = list(client.responses.retrieve(identity, stream=True, starting_after=number))
    assert rest[0].sequence_number == number + 1
    assert rest[-1].type == "response.completed"
    assert rest[-1].response.output_text == TEXT


def test_open_responses_in_the_background(http: MakeHttp) -> None:
    """The end of such a stream is there each time."""
    server = http(FINAL, open_responses=True)
    text = server.post(URL, json=STREAMED).text
    assert text.endswith("data: [DONE]\n\n")
    identity = events_of(text)[0][1]["response"]["id"]
    assert server.get(f"{URL}/{identity}?stream=true").text == text


def test_a_prompt_that_is_too_long_in_the_background(http: MakeHttp) -> None:
    """The stream says it."""
    asked = {**STREAMED, "input": "word " * 70_000}
    events = events_of(http().post(URL, json=asked).text)
    names = ["response.created", "response.in_progress", "response.failed"]
    assert [name for name, _ in events] == names
    assert [data["sequence_number"] for _, data in events] == [0, 1, 2]
    assert events[-1][1]["response"]["error"]["code"] == "context_length_exceeded"


def test_a_model_that_cannot_be_had(http: MakeHttp) -> None:
    """A stream that fails before it begins has a beginning and an end; so has the response."""
    server = http(FINAL)
    asked = {**STREAMED, "text": {"format": {"type": "json_schema", "schema": {"type": "x"}}}}
    events = events_of(server.post(URL, json=asked).text)
    assert [name for name, _ in events] == ["response.created", "response.failed"]
    failed = events[-1][1]["response"]
    assert server.get(f"{URL}/{failed['id']}").json() == failed


def test_what_was_not_streamed_is_not_streamed_later(http: MakeHttp) -> None:
    """It says what would have been necessary."""
    client = client_of(http(FINAL))
    response = client.responses.create(model="m", input="Rain?")
    with pytest.raises(openai.BadRequestError, match="background and stream"):
        client.responses.retrieve(response.id, stream=True)


def test_readers_of_a_log() -> None:
    """Each gets all there is, what comes later, signs of life meanwhile, and the end."""

    async def main() -> None:
        log = EventLog()
        log.add([("a", {"n": 0}), ("b", {"n": 1})])
        early = log.follow(0, 0.01)
        assert (await anext(early)).count(b"data:") == 2
        assert await anext(early) == b": still working\n\n"
        log.add([("c", {"n": 2})])
        assert await anext(early) == b'event: c\ndata: {"n":2}\n\n'
        log.add([("d", {"n": 3})])  # while the reader holds what it was given
        assert await anext(early) == b'event: d\ndata: {"n":3}\n\n'
        late = log.follow(1, 10)
        assert (await anext(late)).count(b"data:") == 3
        waiting = asyncio.create_task(anext(late))
        await asyncio.sleep(0)
        log.end(b"end")
        assert await waiting == b"end"
        assert [text async for text in early] == [b"end"]
        assert [text async for text in log.follow(7, 10)] == [b"end"]

    asyncio.run(main())


def test_logs_are_bounded() -> None:
    """The oldest go, of those that are over; what is worked on stays whatever it takes."""

    async def main() -> list[bool]:
        logs = EventLogs(max_bytes=100)
        for number in range(4):
            log = EventLog()
            log.add([("x", {"text": "x" * 60})])
            if number != 1:
                log.end()
            logs.keep("me", str(number), log)
        logs.keep("me", "4", EventLog())
        assert logs.find("you", "4") is None
        return [logs.find("me", str(number)) is not None for number in range(5)]

    assert asyncio.run(main()) == [False, True, False, False, True]


def begun(lines: Iterator[str]) -> str:
    """The id of a response whose events are read until the model has said something."""
    identity = next(line for line in lines if "response.created" in line and "data:" in line)
    assert any("output_text.delta" in line for line in lines)
    return identity.split('"id":"')[1].split('"')[0]


@pytest.mark.parametrize("options", [{}, {"store": False}])
def test_a_client_that_goes_away(
    served: MakeServed, tokenizer: Tokenizer, options: dict[str, Any]
) -> None:
    """Its response is cancelled; where it is stored, what had come by then stays."""
    talk = tokenizer.encode_with_special("<|channel|>final<|message|>word word")
    made = served(model=EndlessModel(talk))
    with live(made.app) as url:
        asked = {"input": "Rain?", "stream": True, **options}
        with httpx.stream("POST", url + URL, json=asked) as response:
            identity = begun(response.iter_lines())
        assert soon(lambda: not made.engine.health.running)
        path = f"{url}{URL}/{identity}"
        if options:
            assert httpx.get(path).status_code == 404
            return
        assert soon(lambda: httpx.get(path).status_code == 200)
        kept = httpx.get(path).json()
        assert check_response(kept).output_text.startswith("word")
        assert (kept["status"], kept["output"][0]["status"]) == ("cancelled", "incomplete")


def test_a_client_of_the_background_that_goes_away(
    served: MakeServed, tokenizer: Tokenizer
) -> None:
    """Its response goes on; who comes back has all of it, until it is cancelled."""
    talk = tokenizer.encode_with_special("<|channel|>final<|message|>word word")
    made = served(model=EndlessModel(talk))
    with live(made.app) as url:
        with httpx.stream("POST", url + URL, json=STREAMED) as response:
            identity = begun(response.iter_lines())
        path = f"{url}{URL}/{identity}"
        with httpx.stream("GET", path, params={"stream": "true"}) as response:
            lines = response.iter_lines()
            assert begun(lines) == identity
            assert made.engine.health.running == 1
            httpx.post(f"{path}/cancel")
            assert any(line == "event: response.incomplete" for line in lines)
        assert httpx.get(path).json()["status"] == "cancelled"
        assert soon(lambda: not made.engine.health.running)
