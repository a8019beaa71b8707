"""What Prometheus is told."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import httpx2 as httpx
import pytest
from prometheus_client import REGISTRY
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from gptoss_mlx.engine import Engine
from gptoss_mlx.memory import Use
from gptoss_mlx.server.app import make_app
from gptoss_mlx.server.host import ModelHost, OpenModel
from gptoss_mlx.server.settings import Settings
from gptoss_mlx.tokenizer import Tokenizer

from .conftest import ANSWER, EndlessModel, MakeServed, live, soon
from .every import unloaded

Client = Callable[..., TestClient]
HELLO = {"messages": [{"role": "user", "content": "my secret"}]}
CHAT = "/v1/chat/completions"


def samples(text: str) -> dict[str, float]:
    """name{label,...} -> value."""
    return {
        sample.name.removeprefix("gptoss_mlx_")
        + "".join(f" {value}" for value in sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def scrape(http: TestClient) -> dict[str, float]:
    """The figures now."""
    response = http.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    return samples(response.text)


def test_a_request(client: Client) -> None:
    """What it took is what the client was told, and what it said is nowhere."""
    http = client(ANSWER, ANSWER)
    usage = http.post(CHAT, json=HELLO).json()["usage"]
    found = scrape(http)
    assert found[f"requests_total {CHAT} 200"] == 1
    assert found["completions_total stop"] == 1
    assert found["tokens_total prompt"] == usage["prompt_tokens"]
    assert found["tokens_total generated"] == usage["completion_tokens"]
    assert found["time_to_first_token_seconds_count"] == 1
    assert 0 < found["time_to_first_token_seconds_sum"] < 10
    assert found["tokens_per_second_count"] == 1
    assert found["prompts_total miss"] == 1
    assert found["tokens_total cached"] == 0
    usage = http.post(CHAT, json=HELLO).json()["usage"]
    again = scrape(http)
    assert again["prompts_total hit"] == 1
    assert again["tokens_total cached"] == usage["prompt_tokens_details"]["cached_tokens"] > 0
    assert "secret" not in http.get("/metrics").text


def test_every_api_counts(client: Client) -> None:
    """Also what is answered in the background, and a stream."""
    http = client(*[ANSWER] * 5)
    http.post(CHAT, json={**HELLO, "stream": True})
    http.post("/v1/completions", json={"prompt": "Hi"})
    http.post("/v1/responses", json={"input": "Hi"})
    http.post("/v1/responses", json={"input": "Hi", "background": True})
    http.post("/v1/messages", json={**HELLO, "max_tokens": 100})
    assert soon(lambda: sum(ends(scrape(http)).values()) == 5)
    found = scrape(http)
    assert found["requests_total /v1/responses 200"] == 2
    assert found["requests_total /v1/messages 200"] == 1


def ends(found: dict[str, float]) -> dict[str, float]:
    """Completions that have ended."""
    return {name: n for name, n in found.items() if name.startswith("completions_total")}


def test_paths_are_few(client: Client) -> None:
    """Whatever clients make up, the figures do not grow: routes, and all else together."""
    http = client(api_keys=("k",))
    for n in range(5):
        http.get(f"/made/up/{n}", headers={"x-api-key": "k"})
        http.get(f"/v1/models/{n}", headers={"x-api-key": "k"})
        http.get(f"/v1/responses/{n}")
        http.request(f"M{n}", "/v1/models")
    found = samples(http.get("/metrics", headers={"x-api-key": "k"}).text)
    assert {name: n for name, n in found.items() if name.startswith("requests_total")} == {
        "requests_total other 404": 5,
        "requests_total /v1/models/{name:path} 404": 5,
        "requests_total /v1/responses/{identity} 401": 5,
        "requests_total /v1/models 401": 5,
    }


def test_the_queue(served: MakeServed, tokenizer: Tokenizer) -> None:
    """Who runs, who waits, who was turned away, and who left."""
    talk = tokenizer.encode_with_special("<|channel|>final<|message|>word word")
    made = served(model=EndlessModel(talk), max_running=1, max_waiting=1)
    body = {**HELLO, "max_tokens": 10_000, "stream": True}
    with live(made.app) as url:

        def found() -> dict[str, float]:
            return samples(httpx.get(f"{url}/metrics").text)

        with httpx.stream("POST", url + CHAT, json=body) as first:
            lines = first.iter_lines()  # forgotten, it would be closed
            begun(lines)
            with httpx.stream("POST", url + CHAT, json=body):
                assert soon(lambda: found()["queue waiting"] == 1)
                assert found()["queue running"] == 1
                assert httpx.post(url + CHAT, json=body).status_code == 429
                assert found()[f"requests_total {CHAT} 429"] == 1
        assert soon(lambda: found().get("completions_total cancelled") == 2)
        assert soon(lambda: found()["queue running"] + found()["queue waiting"] == 0)


def begun(lines: Iterator[str]) -> None:
    """Read until the model has said something."""
    assert any('"word"' in line for line in lines)


def test_a_model_that_comes_and_goes(tokenizer: Tokenizer) -> None:
    """Loaded when needed, with its memory and its plan; and after it was unloaded nothing of it."""
    host = ModelHost(lambda: OpenModel(Engine.load("demo", Use(4096)), tokenizer), idle=0.3)
    with TestClient(make_app(Settings("demo"), host), "http://127.0.0.1") as http:
        before = scrape(http)
        assert (before["model_loaded"], before["ready"]) == (0, 1)
        assert "memory_bytes planned" not in before
        http.post(CHAT, json={**HELLO, "max_tokens": 5})
        during = scrape(http)
        assert during["model_loaded"] == 1
        weights = during["memory_bytes mlx_active"] - before["memory_bytes mlx_active"]
        assert weights > 20e6
        assert during["memory_bytes planned"] > weights
        assert 0 < during["memory_bytes prefix_cache"] < during["memory_bytes prefix_cache_limit"]
        assert during["memory_bytes process"] > 50e6
        assert soon(lambda: scrape(http)["model_loaded"] == 0)
        assert soon(
            lambda: (
                scrape(http)["memory_bytes mlx_active"]
                < before["memory_bytes mlx_active"] + weights / 20
            )
        )
        assert scrape(http)["memory_bytes mlx_cached"] < 1e6
        assert http.post(CHAT, json={**HELLO, "max_tokens": 5}).status_code == 200
        assert scrape(http)["completions_total length"] == 2


def test_not_for_everybody(client: Client) -> None:
    """Where a key is needed, it is needed here."""
    http = client(api_keys=("k",))
    assert http.get("/metrics").status_code == 401
    assert http.get("/metrics", headers={"authorization": "Bearer k"}).status_code == 200


def test_applications_count_for_themselves() -> None:
    """Two in a process do not share figures, nor leave any in the library's own registry."""
    before = list(REGISTRY.collect())
    first, second = (TestClient(unloaded(), "http://127.0.0.1") for _ in range(2))
    first.get("/v1/models")
    assert scrape(first)["requests_total /v1/models 200"] == 1
    assert "requests_total /v1/models 200" not in scrape(second)
    assert len(list(REGISTRY.collect())) == len(before)


def test_it_may_be_asked_at_any_time(served: MakeServed, tokenizer: Tokenizer) -> None:
    """While prompts come and go, too, whose places the memory is added up from."""
    made = served(model=EndlessModel(tokenizer.encode_with_special(ANSWER)))
    with live(made.app) as url:
        end = time.monotonic() + 1
        while time.monotonic() < end:
            httpx.post(url + CHAT, json={**HELLO, "max_tokens": 2})
            found = samples(httpx.get(f"{url}/metrics").text)
            assert found["memory_bytes prefix_cache"] >= 0


@pytest.mark.parametrize("method", ["HEAD", "GET"])
def test_reading_changes_nothing(client: Client, method: str) -> None:
    """But the count of its own requests."""
    http = client()
    http.request(method, "/metrics")
    assert scrape(http)["requests_total /metrics 200"] == 1
