"""Tokens a second of streams over HTTP, against the engine's own in the same process.

    python benchmarks/serve_overhead.py [MODEL] [--tokens N] [--rounds N] [--streams 1,4]

A server runs in a process of its own. In turns its engine is read there directly, by a thread for
each request, and over HTTP from here: /v1/completions with the same prompts, and chat completions.
Greedy, with all that could stop a completion forbidden, so that all give the same number of tokens.
A rate is of all tokens after the first, over the time from the first to the last; medians of
`--rounds`, and their ratio to the engine's. The exit code is 1 if one is below `--bar`.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import time
from collections.abc import Awaitable, Callable
from statistics import median
from typing import Any

from machine import describe, print_table
from serve_child import post, serving, stream

from gptoss_mlx.tokenizer import END, STOP_TOKENS

_NO_END = {str(i): -100 for i in (*sorted(STOP_TOKENS), END)}
_WORDS = re.compile(rb'"(text|content|reasoning)":"[^"]')
_TEXT = "Tell me something long about number {}, and then go on and on."
Times = list[list[float]]


async def direct(url: str, prompts: list[str], tokens: int) -> Times:
    """The engine alone."""
    body = {"prompts": prompts, "max_tokens": tokens, "logit_bias": _NO_END}
    return await post(url, "/direct", body)


async def completions(url: str, prompts: list[str], tokens: int) -> Times:
    """Raw completions."""
    bodies = [{"prompt": prompt, "max_tokens": tokens} for prompt in prompts]
    return await _all(url, "/v1/completions", bodies)


async def chats(url: str, prompts: list[str], tokens: int) -> Times:
    """Chat completions."""
    bodies = [
        {"messages": [{"role": "user", "content": prompt}], "max_tokens": tokens}
        for prompt in prompts
    ]
    return await _all(url, "/v1/chat/completions", bodies)


async def _all(url: str, path: str, bodies: list[dict[str, Any]]) -> Times:
    """When each event with text came, of several streams at once."""

    async def one(body: dict[str, Any]) -> list[float]:
        common = {"stream": True, "temperature": 0, "logit_bias": _NO_END}
        async with stream(url, path, {**body, **common}) as answer:
            if answer.status != 200:
                raise SystemExit(f"{path}: {answer.status}")
            return [time.perf_counter() async for data in answer.data() if _WORDS.search(data)]

    return list(await asyncio.gather(*(one(body) for body in bodies)))


def rate(times: Times, tokens: int) -> float:
    """Tokens a second of all together."""
    first, last = min(some[0] for some in times), max(some[-1] for some in times)
    return len(times) * (tokens - 1) / (last - first)


async def measure(url: str, options: argparse.Namespace) -> bool:
    """Print the table; whether all is above the bar."""
    sides: dict[str, Callable[[str, list[str], int], Awaitable[Times]]] = {
        "engine": direct,
        "/v1/completions": completions,
        "/v1/chat/completions": chats,
    }
    heads = [f"{name} / engine" for name in list(sides)[1:]]
    rows = [["streams", *(f"{name}, tok/s" for name in sides), *heads]]
    is_good = True
    for count in map(int, options.streams.split(",")):
        rates: dict[str, list[float]] = {name: [] for name in sides}
        for n in range(options.rounds + 1):
            prompts = [_TEXT.format(i) for i in range(count)]
            for name, side in sides.items():
                found = rate(await side(url, prompts, options.tokens), options.tokens)
                if n:  # the first round warms up, and fills the cache of prompts
                    rates[name].append(found)
        own, *others = (median(found) for found in rates.values())
        rows.append([str(count), *(f"{found:.1f}" for found in (own, *others))])
        rows[-1] += [f"{found / own:.1%}" for found in others]
        is_good = is_good and min(others) >= options.bar * own
    print_table(rows)
    return is_good


def main() -> int:
    """Measure, and hold it against the bar."""
    parser = argparse.ArgumentParser(description="Time streams over HTTP against the engine.")
    parser.add_argument("model", nargs="?", default="demo")
    parser.add_argument("--tokens", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--streams", default="1,4", help="how many at once")
    parser.add_argument("--bar", type=float, default=0.95)
    options = parser.parse_args()
    print(describe())
    with serving(options.model) as (url, _):
        return 0 if asyncio.run(measure(url, options)) else 1


if __name__ == "__main__":
    raise SystemExit(main())
