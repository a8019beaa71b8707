"""The process that measures one side: `python -m gptoss_mlx.bench.child SIDE`.

The workload comes as a line of JSON on stdin; when stdin ends, so does the process. Events go out
as JSON lines on what was stdout; whatever else is printed, by libraries for one, goes to stderr.
MLX is imported only after it is settled how it runs: for mlx-lm with MLX's own limits, unless the
user has set others.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from typing import TextIO, cast

import gptoss_mlx
from gptoss_mlx.bench.events import Failure, to_line
from gptoss_mlx.bench.sides import SideName
from gptoss_mlx.bench.workload import Workload
from gptoss_mlx.errors import GptOssError

__all__ = ["main", "restore_limits"]


def main() -> int:
    """Measure, and tell; returns the exit code."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # the parent says that it was stopped
    out = _take_stdout()
    name = cast("SideName", sys.argv[1])
    if name == "mlx-lm":
        restore_limits()
    workload = Workload.from_json(sys.stdin.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    from gptoss_mlx.bench.measuring import measure

    try:
        for event in measure(name, workload):
            print(to_line(event), file=out, flush=True)
    except GptOssError as error:
        print(to_line(Failure(str(error))), file=out, flush=True)
        return 1
    return 0


def _take_stdout() -> TextIO:
    """What was stdout; from now on that is stderr."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return out


def _end_with_parent() -> None:
    os.read(0, 1)  # sys.stdin.read would hold a lock that the interpreter's end needs
    os._exit(1)


def restore_limits() -> None:
    """Take back what this package sets for itself when it is imported."""
    for name, value in gptoss_mlx.BUFFER_LIMITS.items():
        if os.environ.get(name) == value:
            del os.environ[name]


if __name__ == "__main__":
    sys.exit(main())
