"""Servers for tests: in this process over ASGI, and real ones on a free port."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import pytest
import uvicorn
from helpers import ReplayModel
from starlette.applications import Starlette
from starlette.testclient import TestClient

from gptoss_mlx.engine import Engine
from gptoss_mlx.model import Model
from gptoss_mlx.models import load
from gptoss_mlx.server.app import make_app
from gptoss_mlx.server.host import ModelHost, OpenModel
from gptoss_mlx.server.reply import OpenTools
from gptoss_mlx.server.serving import listen, serve, url_of
from gptoss_mlx.server.settings import Settings
from gptoss_mlx.tokenizer import Tokenizer

THINK = "<|channel|>analysis<|message|>They greet me.<|end|><|start|>assistant"
ANSWER = "<|channel|>final<|message|>Hello there, friend!<|return|>"
CALL = '<|channel|>commentary to=functions.f <|constrain|>json<|message|>{"a": 1}<|call|>'


class EndlessModel(ReplayModel):
    """Says the same word again and again, slowly, once its script is over."""

    def next_id(self, number: int, n: int) -> int:
        """The script's next id, after a while."""
        time.sleep(0.01)
        script = self.scripts[min(number, len(self.scripts) - 1)]
        return script[n] if n < len(script) else script[-1]


@dataclass(frozen=True)
class Served:
    """An application, and what it stands on."""

    app: Starlette
    engine: Engine
    model: Model
    host: ModelHost

    @property
    def prompts(self) -> list[list[int]]:
        """What a replaying model was given, one for each turn."""
        assert isinstance(self.model, ReplayModel)
        return list(self.model.prompts.values())


class MakeServed(Protocol):
    """Makes an application whose model replays scripts, or is the one that is given."""

    def __call__(
        self,
        *scripts: str,
        model: Model | None = None,
        max_running: int = 8,
        max_waiting: int = 64,
        open_tools: OpenTools | None = None,
        **settings: Any,
    ) -> Served:
        """The settings are those of `Settings`."""
        ...


@pytest.fixture(scope="session")
def demo_model() -> Model:
    """The demo."""
    return load("demo")


@pytest.fixture
def served(tokenizer: Tokenizer) -> Iterator[MakeServed]:
    """Makes applications; their engines are closed afterwards."""
    with ExitStack() as stack:

        def make(
            *scripts: str,
            model: Model | None = None,
            max_running: int = 8,
            max_waiting: int = 64,
            open_tools: OpenTools | None = None,
            **settings: Any,
        ) -> Served:
            model = model or ReplayModel(*map(tokenizer.encode_with_special, scripts))
            engine = stack.enter_context(
                Engine(model, max_running=max_running, max_waiting=max_waiting)
            )
            host = ModelHost(lambda: OpenModel(engine, tokenizer))
            host.open()
            app = make_app(Settings("replay", **settings), host, open_tools)
            return Served(app, engine, model, host)

        yield make


@pytest.fixture
def client(served: MakeServed) -> Iterator[Callable[..., TestClient]]:
    """Makes clients of applications made by `served`, in this process."""
    with ExitStack() as stack:

        def make(*scripts: str, **options: Any) -> TestClient:
            app = served(*scripts, **options).app
            return stack.enter_context(TestClient(app, "http://127.0.0.1"))

        yield make


@contextmanager
def live(app: Starlette) -> Generator[str]:
    """The URL of a real server on a free port."""
    servers: list[uvicorn.Server] = []
    with listen("127.0.0.1", 0) as listener:
        thread = threading.Thread(target=serve, args=(app, listener, servers.append))
        thread.start()
        try:
            assert soon(lambda: bool(servers) and servers[0].started)
            yield url_of(listener)
        finally:
            servers[0].should_exit = True
            thread.join(10)
            assert not thread.is_alive()


def soon(condition: Callable[[], bool], seconds: float = 10.0) -> bool:
    """Whether something comes true within a while."""
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    return condition()
