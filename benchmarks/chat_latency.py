"""How long a user of `chat` waits: from the shell to the prompt, from Enter to the first token.

    python benchmarks/chat_latency.py [MODEL] [--rounds N]

Types into `gptoss-mlx chat` on a pseudo-terminal and prints medians. The first token is the first
word of the chain of thought, which is shown here; it is found by looking for the word that the
model, drawing greedily, begins with. Stock `mlx_lm.chat` is started by turns in the same run; it
has no template for harmony, so only its way to the prompt is timed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from typing import Any

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
    word = first_word(folder)
    ours: list[float] = []
    theirs: list[float] = []
    answers: list[float] = []
    for _ in range(arguments.rounds):
        options = ["--private", "--show-reasoning", "--temperature", "0"]
        chat, seconds = started(["gptoss_mlx", "chat", "-m", folder, *options], ">>>")
        ours.append(seconds)
        answers.append(answered(chat, word))
        _, seconds = started(["mlx_lm", "chat", "--model", folder], "›")
        theirs.append(seconds)
    a, b = statistics.median(ours), statistics.median(theirs)
    print(f"shell to prompt: {a:.2f} s; mlx_lm.chat: {b:.2f} s; ratio {a / b:.2f}")
    print(f"Enter to first token: {statistics.median(answers):.3f} s")


def first_word(folder: str) -> str:
    """The word that the chain of thought begins with; each token has styles around it."""
    arguments = ["-m", "gptoss_mlx", "chat", "-m", folder, "--private", "--temperature", "0"]
    output: Any = pexpect.run(  # pyright: ignore[reportUnknownVariableType]
        " ".join([sys.executable, *arguments, "--json", QUESTION]), timeout=300
    )
    return json.loads(output.splitlines()[-1])["reasoning"].split()[0]


def started(arguments: list[str], prompt: str) -> tuple[Any, float]:
    """(the program on a terminal, seconds until its prompt stood there)."""
    environment = {**os.environ, "TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1"}
    began = time.monotonic()
    program: Any = pexpect.spawn(  # pyright: ignore[reportUnknownVariableType]
        sys.executable,
        ["-m", *arguments],
        env=environment,  # pyright: ignore[reportArgumentType]  (any mapping does)
        timeout=120,
        encoding="utf-8",
    )
    program.expect_exact(prompt)
    return program, time.monotonic() - began


def answered(chat: Any, word: str) -> float:
    """Seconds from Enter to the answer's first word."""
    time.sleep(0.5)  # a person has to type
    chat.send(QUESTION)
    time.sleep(0.5)
    chat.read_nonblocking(10_000, timeout=1)  # the echo
    entered = time.monotonic()
    chat.send("\r")
    chat.expect_exact(word)
    seconds = time.monotonic() - entered
    chat.close(force=True)
    return seconds


if __name__ == "__main__":
    main()
