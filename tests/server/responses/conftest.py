"""Servers whose model replays scripts, and OpenAI's client of them."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import Any, Protocol

import pytest
from helpers import ReplayModel
from openai import OpenAI
from starlette.testclient import TestClient

from gptoss_mlx.engine import Engine
from gptoss_mlx.server.app import make_app
from gptoss_mlx.server.host import ModelHost, OpenModel
from gptoss_mlx.server.responses.store import ResponseStore
from gptoss_mlx.server.settings import Settings
from gptoss_mlx.tokenizer import Tokenizer
from gptoss_mlx.tools import Toolbox
from gptoss_mlx.tools.browser import BrowserTool

from .scenes import FakePages, FakePython

URL = "/v1/responses"
KEYS = ("mine", "yours")


class MakeHttp(Protocol):
    """Makes a client of a server whose model replays scripts, or is the one that is given."""

    def __call__(
        self,
        *scripts: str,
        model: ReplayModel | None = None,
        store: ResponseStore | None = None,
        **settings: Any,
    ) -> TestClient:
        """The client, which has the first key; the settings are those of `Settings`."""
        ...


class SlowModel(ReplayModel):
    """Takes its time."""

    def next_id(self, number: int, n: int) -> int:
        """The script's next id, after a while."""
        time.sleep(0.02)
        return super().next_id(number, n)


@pytest.fixture
def http(tokenizer: Tokenizer) -> Iterator[MakeHttp]:
    """Makes clients, which have the first key."""
    with ExitStack() as stack:

        def open_tools(names: Sequence[str]) -> Toolbox:
            browser = BrowserTool(FakePages(), encode=tokenizer.encode)
            tools = {"browser": browser, "python": FakePython()}
            return Toolbox([tools[name] for name in names])

        def make(
            *scripts: str,
            model: ReplayModel | None = None,
            store: ResponseStore | None = None,
            **settings: Any,
        ) -> TestClient:
            model = model or ReplayModel(*map(tokenizer.encode_with_special, scripts))
            engine = stack.enter_context(Engine(model))
            host = ModelHost(lambda: OpenModel(engine, tokenizer))
            host.open()
            settings.setdefault("tools", {"browser": "browser", "python": "python"})
            made = Settings("gpt-oss", api_keys=KEYS, **settings)
            app = make_app(made, host, open_tools, store=store)
            client = TestClient(app, "http://127.0.0.1", headers={"x-api-key": "mine"})
            return stack.enter_context(client)

        yield make


def client_of(http: TestClient, key: str = "mine") -> OpenAI:
    """OpenAI's client of the same server."""
    return OpenAI(base_url="http://127.0.0.1/v1", api_key=key, http_client=http, max_retries=0)


def events_of(body: str) -> list[tuple[str | None, dict[str, Any]]]:
    """The events of a stream, by the letter; comments and the end are none."""
    events: list[tuple[str | None, dict[str, Any]]] = []
    for block in body.removesuffix("\n\n").split("\n\n"):
        if block.startswith(":") or block == "data: [DONE]":
            continue
        name, data = block.split("\n")
        events.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return events
