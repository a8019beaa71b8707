"""Sides in turns: each round is a process for each side, one after the other.

Two models do not fit into a small Mac at once, memory of one process is one side's, what else the
machine does meanwhile hits both, and one that is killed is a line of its own. It loads no model.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from collections.abc import Generator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import IO

from gptoss_mlx.bench.events import Event, Failure, from_line
from gptoss_mlx.bench.sides import SIDES, SideName
from gptoss_mlx.bench.workload import Workload

__all__ = ["Turn", "in_turns", "run_child"]


@dataclass(frozen=True)
class Turn:
    """Something that a side's process told, in a round counted from 0."""

    round: int
    side: SideName
    event: Event


def in_turns(workload: Workload, sides: Sequence[SideName], rounds: int) -> Generator[Turn]:
    """Run all sides, `rounds` times. One that fails is left out from then on; ours ends it all."""
    going = list(sides)
    for n in range(rounds):
        for side in list(going):
            for event in run_child(side, workload):
                yield Turn(n, side, event)
                if isinstance(event, Failure):
                    going.remove(side)
                    if side == SIDES[0]:
                        return


def run_child(side: SideName, workload: Workload) -> Iterator[Event]:
    """What a side's process tells. It ends with the iterator; if it fails, Failure is the last."""
    command = [sys.executable, "-P", "-m", "gptoss_mlx.bench.child", side]
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, encoding="utf-8"
        )
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            with suppress(BrokenPipeError):  # it is dead already
                process.stdin.write(f"{workload.to_json()}\n")
                process.stdin.flush()
            for line in process.stdout:
                if not line.endswith("\n"):  # the process died while it wrote
                    break
                event = from_line(line)
                yield event
                if isinstance(event, Failure):
                    return
            if process.wait():
                yield _failure(process.returncode, errors)
        finally:
            process.kill()
            process.wait()
            process.stdout.close()
            with suppress(BrokenPipeError):
                process.stdin.close()


def _failure(code: int, errors: IO[bytes]) -> Failure:
    """Why a process ended that did not say so itself."""
    errors.seek(0)
    said = errors.read().decode(errors="replace").strip()
    last = said.rpartition("\n")[2]
    if code == -signal.SIGKILL:
        text = (
            "its process was killed, as happens when memory runs out: close other programs, or "
            "pass smaller --contexts and --batches"
        )
    elif code < 0:
        text = f"its process died of signal {-code}" + (f": {last}" if last else "")
    else:
        text = last or f"its process ended with exit code {code}"
    return Failure(text, said)
