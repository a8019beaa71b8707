"""How long a user of `chat` waits: from the shell to the prompt, from Enter to the first token.

    python benchmarks/chat_latency.py [MODEL] [--rounds N]

Types into `gptoss-mlx chat` and into stock `mlx_lm.chat` on pseudo-terminals, by turns in one run,
and prints the medians of both. The first token is the first letter of the chain of thought, which
both show here; ours is found by looking for the text that the model, drawing greedily, begins
with. mlx_lm.chat shows the header before it, so it is given the header's time for nothing.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable

import pexpect

from gptoss_mlx.models import resolve

QUESTION = "Hello!"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", default="demo")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    folder = str(resolve(arguments.model))
    begin = first_words(folder)
    ours, theirs = [], []
    for _ in range(arguments.rounds):
        ours.append(waits(lambda: our_chat(folder), ">>> ", begin))
        theirs.append(waits(lambda: their_chat(folder), ">> ", "analysis"))
    print(f"{'median of ' + str(arguments.rounds):24} {'ours':>8} {'mlx_lm':>8} {'ratio':>6}")
    for i, what in enumerate(("shell to prompt", "Enter to first token")):
        a, b = (statistics.median(row[i] for row in rows) for rows in (ours, theirs))
        print(f"{what:24} {a:7.2f}s {b:7.2f}s {a / b:6.2f}")


def first_words(folder: str) -> str:
    """What the chain of thought begins with."""
    output, _ = pexpect.run(
        f"{sys.executable} -m gptoss_mlx chat -m {folder} --temperature 0 --json {QUESTION}",
        withexitstatus=True,
        timeout=600,
        env={**os.environ, "GPTOSS_MLX_DATA": "/nonexistent"},
    )
    import json

    return json.loads(output.splitlines()[-1])["reasoning"][:8]


def waits(start: Callable[[], pexpect.spawn], prompt: str, answer: str) -> tuple[float, float]:
    """Seconds from the start to the prompt, and from Enter to the answer."""
    began = time.monotonic()
    child = start()
    child.expect_exact(prompt)
    ready = time.monotonic() - began
    time.sleep(0.5)  # a person has to type
    child.send(QUESTION)
    time.sleep(0.2)
    child.expect([r".+", pexpect.TIMEOUT], timeout=0.2)  # the echo
    entered = time.monotonic()
    child.send("\r")
    child.expect_exact(answer)
    first = time.monotonic() - entered
    child.close(force=True)
    return ready, first


def our_chat(folder: str) -> pexpect.spawn:
    """Ours, as a user starts it, but for what makes the first words known."""
    options = ["--private", "--show-reasoning", "--temperature", "0"]
    return _spawn(["-m", "gptoss_mlx", "chat", "-m", folder, *options])


def their_chat(folder: str) -> pexpect.spawn:
    """Stock mlx-lm's."""
    return _spawn(["-m", "mlx_lm", "chat", "--model", folder])


def _spawn(arguments: list[str]) -> pexpect.spawn:
    environment = {**os.environ, "TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1"}
    return pexpect.spawn(
        sys.executable, arguments, env=environment, timeout=600, encoding="utf-8", echo=False
    )


if __name__ == "__main__":
    main()
