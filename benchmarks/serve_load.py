"""Many clients that stream at once and go away at random, against a server in its own process.

    python benchmarks/serve_load.py [MODEL] [--clients N] [--seconds S] [--seed N]

Each client asks one API after the other for a short answer; some leave after a while, some before
anything has come; whoever is told to come back (429) does so. A first, shorter load warms up. Then
what the process holds is compared before and after. Prints tokens a second, the time to the first
text (p50, p95), and what came. The exit code is 1 if any status but 200 and 429 has come, a stream
ended in the middle, the server is not well afterwards, or something is left over.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import re
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from machine import describe, print_table
from serve_child import Stream, get, serving, stream

_WORDS = re.compile(rb'"(text|content|reasoning|delta|thinking)":"[^"]')
_QUESTIONS = ("What is 2 + 2?", "What is the capital of France?", "Say hello.", "Tell me a story.")
_REST = {"status": "ok", "running": 0, "waiting": 0}
_MOST_GROWTH = 128  # MiB outside MLX: stored responses, and what threads' allocators keep
_WARM_UP = 45.0  # seconds at most: by then memory outside MLX had stopped to grow


@dataclass
class Found:
    """What the clients have seen."""

    kinds: Counter[str] = field(default_factory=Counter[str])
    first: list[float] = field(default_factory=list[float])  # seconds to the first text

    def percentile(self, share: float) -> float:
        """Of the times to the first text."""
        return sorted(self.first)[int(share * (len(self.first) - 1))] if self.first else 0.0


def request(draw: random.Random) -> tuple[str, dict[str, Any]]:
    """A path and a body."""
    text = f"{draw.choice(_QUESTIONS)} {'Please. ' * draw.randrange(8)}"
    messages = [{"role": "user", "content": text}]
    limit = draw.randrange(4, 40)
    return draw.choice(
        [
            ("/v1/chat/completions", {"messages": messages, "max_tokens": limit, "stream": True}),
            ("/v1/completions", {"prompt": text, "max_tokens": limit, "stream": True}),
            ("/v1/responses", {"input": text, "max_output_tokens": limit, "stream": True}),
            ("/v1/messages", {"messages": messages, "max_tokens": limit, "stream": True}),
        ]
    )


async def client(url: str, draw: random.Random, found: Found) -> None:
    """Ask again and again."""
    while True:
        path, body = request(draw)
        patience = draw.choice([None, None, None, None, 0, 1, 3, 10])  # events, or to the end
        start, wait = time.perf_counter(), 0.0
        try:
            async with stream(url, path, body) as answer:
                kind = await read(answer, patience, start, found)
                wait = float(answer.headers.get("retry-after", 0))
        except (OSError, EOFError, ValueError) as error:
            kind = f"broken ({type(error).__name__})"
        found.kinds[kind] += 1
        if wait:
            await asyncio.sleep(wait + draw.random())


async def read(answer: Stream, patience: int | None, start: float, found: Found) -> str:
    """Read until patience ends; what came of it."""
    if answer.status != 200:
        return str(answer.status)
    has_begun, num_events = False, 0
    async for data in answer.data():
        if not has_begun and _WORDS.search(data):
            has_begun = True
            found.first.append(time.perf_counter() - start)
        if b'"error":{' in data:
            return "error in a stream"
        num_events += 1
        if patience is not None and num_events > patience:
            return "left"
    return "complete"


async def load(url: str, clients: int, seconds: float, seed: int) -> Found:
    """All clients, for a while; then those that still wait leave, too."""
    found = Found()
    draws = [random.Random(seed * 10_000 + n) for n in range(clients)]
    tasks = [asyncio.create_task(client(url, draw, found)) for draw in draws]
    done, _ = await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_EXCEPTION)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    for task in done:
        task.result()  # a client ends only by an error of its own
    return found


async def at_rest(url: str) -> dict[str, int]:
    """What the server holds once nothing runs; it must come to rest within half a minute."""
    held: dict[str, int] = {}
    for _ in range(300):
        held = await get(url, "/held")
        if await get(url, "/health") == _REST and not held["Sequence"]:
            return held
        await asyncio.sleep(0.1)
    raise SystemExit(f"not at rest: {await get(url, '/health')}, {held}")


async def generated(url: str) -> float:
    """Tokens so far."""
    async with stream(url, "/metrics", method="GET") as answer:
        text = (await answer.body()).decode()
    return float(text.split('gptoss_mlx_tokens_total{kind="generated"} ')[1].split("\n")[0])


async def measure(url: str, options: argparse.Namespace) -> int:
    """Load it, print what came, and judge it."""
    await load(url, options.clients, min(_WARM_UP, options.seconds), options.seed + 1)
    before, tokens, start = await at_rest(url), await generated(url), time.perf_counter()
    found = await load(url, options.clients, options.seconds, options.seed)
    seconds = time.perf_counter() - start
    tokens = await generated(url) - tokens
    after = await at_rest(url)
    print(f"{options.clients} clients, {seconds:.0f} s: {tokens:,.0f} tokens, ", end="")
    print(f"{tokens / seconds:.1f} tokens/s; first text after ", end="")
    print(f"{found.percentile(0.5):.2f} s (p50), {found.percentile(0.95):.2f} s (p95)")
    print(", ".join(f"{kind}: {n}" for kind, n in sorted(found.kinds.items())))
    print_table(
        [["", *after], ["before", *map(str, before.values())], ["after", *map(str, after.values())]]
    )
    bad = set(found.kinds) - {"complete", "left", "429"}
    left = [name for name, n in after.items() if not name.endswith("MiB") and n > before[name]]
    if after["other, MiB"] > before["other, MiB"] + _MOST_GROWTH:
        left.append("memory")
    print(f"bad: {', '.join(sorted(bad)) or 'nothing'}; left over: {', '.join(left) or 'nothing'}")
    was_served = bool(set(found.kinds) - {"429"})
    return 1 if bad or left or not was_served else 0


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser(description="Many clients at once.")
    parser.add_argument("model", nargs="?", default="demo")
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print(describe())
    with serving(options.model) as (url, _):
        return asyncio.run(measure(url, options))


if __name__ == "__main__":
    raise SystemExit(main())
