"""Raw completions: prompts, pieces, stops, and a completion that is what the chunks say."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import ValidationError
from starlette.testclient import TestClient

from gptoss_mlx.server.completions.reading import read
from gptoss_mlx.server.completions.schema import CompletionRequest
from gptoss_mlx.server.problems import Problem
from gptoss_mlx.tokenizer import Tokenizer
from server.conftest import MakeServed

Client = Callable[..., TestClient]
TEXT = " Ça va 👩‍🚀, friend<|return|>"
PATH = "/v1/completions"


def asked(**fields: Any) -> CompletionRequest:
    """A request."""
    return CompletionRequest.model_validate({"prompt": "Hi", **fields})


@pytest.mark.parametrize(
    ("prompt", "prompts"),
    [
        ("Hi", ["Hi"]),
        ("", [""]),
        ([1, 2], [(1, 2)]),
        (["a", "b"], ["a", "b"]),
        ([[1], [2, 3]], [(1,), (2, 3)]),
    ],
)
def test_prompts(prompt: Any, prompts: list[Any]) -> None:
    """Text or ids, one or several; each has n choices."""
    for n in (1, 2):
        made = read(asked(prompt=prompt, n=n, seed=5, stop=["x", ""]))
        assert [c.prompt for c in made.completions] == [p for p in prompts for _ in range(n)]
        assert [c.params.seed for c in made.completions] == [
            5 + i for _ in prompts for i in range(n)
        ]
        assert all(c.stop == ("x",) for c in made.completions)


def test_the_limit_is_openais() -> None:
    """Sixteen tokens, where none is said; null is none."""
    assert read(asked()).completions[0].params.max_tokens == 16
    assert read(asked(max_tokens=None)).completions[0].params.max_tokens is None


@pytest.mark.parametrize(
    ("field", "value"),
    [("prompt", "[]"), ("prompt", "[[]]"), ("prompt", "5"), ("prompt", '["a", 1]'), ("n", "17")],
)
def test_wrong_types(field: str, value: str) -> None:
    """Are found by the schema."""
    with pytest.raises(ValidationError):
        asked(**{field: json.loads(value)})


@pytest.mark.parametrize(("field", "value"), [("suffix", "x"), ("logit_bias", {"a": 1})])
def test_what_cannot_be(field: str, value: Any) -> None:
    """Is refused by name."""
    with pytest.raises(Problem) as caught:
        read(asked(**{field: value}))
    assert caught.value.param == field


def test_the_prompt_is_raw(served: MakeServed, tokenizer: Tokenizer) -> None:
    """Markers in it are markers, and nothing is added."""
    made = served(TEXT)
    prompt = "<|start|>user<|message|>Hi<|end|>"
    with TestClient(made.app, "http://127.0.0.1") as http:
        body = http.post(PATH, json={"prompt": prompt, "max_tokens": 50, "echo": True}).json()
    assert made.prompts == [tokenizer.encode_with_special(prompt)]
    (choice,) = body["choices"]
    assert choice["text"] == f"{prompt} Ça va 👩‍🚀, friend"
    assert choice["finish_reason"] == "stop"
    assert body["usage"] == {
        "prompt_tokens": 5,
        "completion_tokens": len(tokenizer.encode_with_special(TEXT)),
        "total_tokens": 5 + len(tokenizer.encode_with_special(TEXT)),
        "prompt_tokens_details": {"cached_tokens": 0},
    }


def chunks_of(http: TestClient, **fields: Any) -> list[dict[str, Any]]:
    """The chunks of a stream."""
    text = http.post(PATH, json={"prompt": "Hi", "stream": True, **fields}).text
    *lines, done = [line.removeprefix("data: ") for line in text.splitlines() if line]
    assert done == "[DONE]"
    return [json.loads(line) for line in lines]


@pytest.mark.parametrize("limit", [1, 4, 6, 50])
@pytest.mark.parametrize("stop", [None, ", fr", "nothing"])
def test_chunks_add_up(client: Client, limit: int, stop: str | None) -> None:
    """To the completion in one piece, also where a character or a stop is cut in two."""
    fields: dict[str, Any] = {"max_tokens": limit, "stop": stop, "logprobs": 1}
    http = client(TEXT, TEXT)
    (whole,) = http.post(PATH, json={"prompt": "Hi", **fields}).json()["choices"]
    chunks = chunks_of(http, **fields, stream_options={"include_usage": True})
    pieces = [choice for chunk in chunks for choice in chunk["choices"]]
    assert "".join(piece["text"] for piece in pieces) == whole["text"]
    assert [p["finish_reason"] for p in pieces if p["finish_reason"]] == [whole["finish_reason"]]
    tokens = [t for p in pieces if p["logprobs"] for t in p["logprobs"]["tokens"]]
    assert tokens == whole["logprobs"]["tokens"]
    assert chunks[-1]["usage"]["completion_tokens"] <= limit
    assert not whole["text"].endswith(stop or "?")


def test_a_stop_ends_it(client: Client) -> None:
    """Before its text, and for good."""
    body = {"prompt": "Hi", "max_tokens": 50, "stop": ", fr"}
    (choice,) = client(TEXT).post(PATH, json=body).json()["choices"]
    assert (choice["text"], choice["finish_reason"]) == (" Ça va 👩‍🚀", "stop")


def test_several(client: Client) -> None:
    """Prompts and choices have indices, a prompt counts once."""
    body = {"prompt": ["a", "b c"], "n": 2, "max_tokens": 2}
    answer = client(*[TEXT] * 4).post(PATH, json=body).json()
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2, 3]
    assert {choice["finish_reason"] for choice in answer["choices"]} == {"length"}
    assert answer["usage"]["prompt_tokens"] == 3
    assert answer["usage"]["completion_tokens"] == 8


def test_logprobs_have_offsets(client: Client) -> None:
    """Where each token's text begins."""
    body = {"prompt": "Hi", "max_tokens": 3, "logprobs": 0, "echo": True}
    (choice,) = client(" one two three").post(PATH, json=body).json()["choices"]
    logprobs = choice["logprobs"]
    assert logprobs["tokens"] == [" one", " two", " three"]
    assert logprobs["text_offset"] == [2, 6, 10]
    assert logprobs["token_logprobs"] == [0, 0, 0]


@pytest.mark.parametrize("prompt", ["", [999_999]])
def test_prompts_that_no_model_takes(client: Client, prompt: Any) -> None:
    """Are the engine's to refuse, and a 400."""
    response = client().post(PATH, json={"prompt": prompt})
    assert response.status_code == 400
    assert "a prompt needs ids" in response.json()["error"]["message"]
