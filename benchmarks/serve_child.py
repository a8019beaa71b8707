"""What the serve_*.py share: a server in a process of its own, and a client of its streams.

Run as a script it is that server: the application with two more routes, one that says what the
process holds, and one that times the engine without any HTTP between its tokens and their reader.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import mlx.core as mx
import psutil
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from gptoss_mlx.config import SamplingParams
from gptoss_mlx.engine import Engine
from gptoss_mlx.models import resolve
from gptoss_mlx.sequence import Request as Asked
from gptoss_mlx.server.app import make_app
from gptoss_mlx.server.host import ModelHost, OpenModel
from gptoss_mlx.server.serving import listen, serve, url_of
from gptoss_mlx.server.settings import Settings
from gptoss_mlx.tokenizer import load_tokenizer

__all__ = ["Stream", "get", "post", "serving", "stream"]

_HELD = ("Sequence", "Generation", "Lease", "Chat", "Reply", "Run", "Answer", "RawCompletion")


@contextmanager
def serving(model: str, *, max_waiting: int = 64) -> Generator[tuple[str, subprocess.Popen[str]]]:
    """The URL of a server in a process of its own, which is ended afterwards."""
    command = [sys.executable, __file__, model, "--max-waiting", str(max_waiting)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip(), process
        finally:
            process.terminate()


@dataclass
class Stream:
    """An answer under way: its status, its headers, and where its lines come from."""

    status: int
    headers: dict[str, str]
    reader: asyncio.StreamReader

    async def data(self) -> AsyncGenerator[bytes]:
        """The data of each event, until the stream ends in order.

        Raises:
            EOFError: it ends in the middle.
        """
        buffer = b""
        while size := int(await self._line(), 16):
            buffer += (await self.reader.readexactly(size + 2))[:-2]
            *events, buffer = buffer.split(b"\n\n")
            for event in events:
                yield event.partition(b"data: ")[2]
        await self._line()

    async def body(self) -> bytes:
        """What has a length."""
        return await self.reader.readexactly(int(self.headers["content-length"]))

    async def _line(self) -> bytes:
        line = await self.reader.readline()
        if not line.endswith(b"\n"):
            raise EOFError
        return line.strip()


@asynccontextmanager
async def stream(
    url: str, path: str, body: object = None, method: str = "POST"
) -> AsyncGenerator[Stream]:
    """Ask, on a connection of its own, which is closed when it is left. It costs little itself."""
    place = urlsplit(url)
    reader, writer = await asyncio.open_connection(place.hostname, place.port)
    try:
        data = b"" if body is None else json.dumps(body).encode()
        head = f"{method} {path} HTTP/1.1\r\nhost: {place.netloc}\r\nconnection: close\r\n"
        writer.write(f"{head}content-length: {len(data)}\r\n\r\n".encode() + data)
        first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines if line)
        yield Stream(int(first.split(" ")[1]), headers, reader)
    finally:
        writer.close()


async def get(url: str, path: str) -> Any:
    """A JSON answer."""
    async with stream(url, path, method="GET") as answer:
        return json.loads(await answer.body())


async def post(url: str, path: str, body: object) -> Any:
    """The same of a POST."""
    async with stream(url, path, body) as answer:
        return json.loads(await answer.body())


def main() -> int:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(description="The server of the serve_*.py.")
    parser.add_argument("model")
    parser.add_argument("--max-waiting", type=int, default=64)
    options = parser.parse_args()
    folder = resolve(options.model)
    tokenizer = load_tokenizer(folder)
    engine = Engine.load(folder, max_waiting=options.max_waiting)
    host = ModelHost(lambda: OpenModel(engine, tokenizer))
    host.open()
    app = make_app(Settings("benchmark"), host)

    async def direct(request: Request) -> JSONResponse:
        asked = await request.json()
        prompts = [tokenizer.encode_with_special(text) for text in asked["prompts"]]
        params = SamplingParams(
            temperature=0,
            max_tokens=asked["max_tokens"],
            logit_bias=tuple((int(i), bias) for i, bias in asked["logit_bias"].items()),
        )
        times = await asyncio.to_thread(_timed, engine, [Asked(tuple(p), params) for p in prompts])
        return JSONResponse(times)

    async def held(_: Request) -> JSONResponse:
        return JSONResponse(_held())

    app.router.routes += [
        Route("/held", held),
        Route("/direct", direct, methods=["POST"]),
    ]
    with listen("127.0.0.1", 0) as listener:
        print(url_of(listener), flush=True)
        serve(app, listener)
    return 0


def _timed(engine: Engine, requests: Sequence[Asked]) -> list[list[float]]:
    """When each token of each request came, read by a thread each."""
    generations = [engine.submit(request) for request in requests]
    times: list[list[float]] = [[] for _ in generations]

    def read(n: int) -> None:
        times[n] += [time.perf_counter() for _ in generations[n]]

    threads = [threading.Thread(target=read, args=(n,)) for n in range(len(generations))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return times


def _held() -> dict[str, Any]:
    """What the process holds now."""
    gc.collect()
    process, in_mlx = psutil.Process(), mx.get_active_memory() + mx.get_cache_memory()
    kinds: list[type[object]] = [type(thing) for thing in gc.get_objects()]
    ours = (kind.__name__ for kind in kinds if kind.__module__.startswith("gptoss_mlx"))
    objects = Counter(name for name in ours if name in _HELD)
    return {
        "MLX, MiB": in_mlx >> 20,
        "other, MiB": (process.memory_info().rss - in_mlx) >> 20,
        "threads": process.num_threads(),
        "files": process.num_fds(),
        **{name: objects[name] for name in _HELD},
    }


if __name__ == "__main__":
    raise SystemExit(main())
