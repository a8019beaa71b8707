"""Conversion against `cp` of the same files to the same disk, in alternation.

    python benchmarks/convert.py SRC DST [--dense q8] [--rounds 3]

Each run is a child process that starts with a cold page cache (where this user may drop it), and
what it wrote is deleted afterwards. A conversion flushes its data to the disk before it returns and
`cp` does not, so both are timed twice over: until they return, and until their data is on the disk.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from machine import describe, gigabytes, peak_rss, print_table

_DROP_CACHES = Path("/proc/sys/vm/drop_caches")
_CONVERT = """
import sys
from pathlib import Path
from gptoss_mlx.convert import convert
convert(Path(sys.argv[1]), Path(sys.argv[2]), dense=sys.argv[3])
"""


@dataclass(frozen=True)
class Run:
    """One child process: seconds until it returned, seconds until its data was on the disk."""

    seconds: float
    flushed: float
    processor: float
    rss: int


def main() -> None:
    """Run both in turn and print a line for each, then medians and ratios."""
    options = _parser().parse_args()
    if options.dst.exists():
        raise SystemExit(f"{options.dst} exists; everything this script writes there is deleted")
    print(describe())
    print("page cache: cold" if _drop_page_cache() else "page cache: WARM, it may not be dropped")
    copies: list[Run] = []
    conversions: list[Run] = []
    for _ in range(options.rounds):
        copies.append(_measured(_copy_command(options.src, options.dst), options.dst))
        _print_run("cp", copies[-1])
        conversions.append(
            _measured(_convert_command(options.src, options.dst, options.dense), options.dst)
        )
        _print_run("convert", conversions[-1])
    _print_summary(copies, conversions)


def _measured(command: list[str], written: Path) -> Run:
    _drop_page_cache()
    started = time.monotonic()
    process = subprocess.Popen(command)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.monotonic() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{command[0]} ended with {process.returncode}")
    os.sync()
    flushed = time.monotonic() - started
    shutil.rmtree(written)
    return Run(seconds, flushed, usage.ru_utime + usage.ru_stime, peak_rss(usage))


def _copy_command(source: Path, destination: Path) -> list[str]:
    destination.mkdir(parents=True)
    return ["cp", *map(str, sorted(source.glob("*.safetensors"))), str(destination)]


def _convert_command(source: Path, destination: Path, dense: str) -> list[str]:
    return [sys.executable, "-c", _CONVERT, str(source), str(destination), dense]


def _drop_page_cache() -> bool:
    """Write out dirty pages, forget clean ones; False where this user may not."""
    os.sync()
    try:
        _DROP_CACHES.write_text("3")
    except OSError:
        return False
    return True


def _print_run(name: str, run: Run) -> None:
    print(
        f"{name:8} {run.seconds:6.1f} s, on disk after {run.flushed:6.1f} s, "
        f"processor {run.processor:6.1f} s, peak RSS {gigabytes(run.rss)}",
        flush=True,
    )


def _print_summary(copies: list[Run], conversions: list[Run]) -> None:
    copied, converted = _median_run(copies), _median_run(conversions)
    print_table(
        [
            ["median", "until it returned", "until on disk", "peak RSS"],
            ["cp", *_times(copied), gigabytes(copied.rss)],
            ["convert", *_times(converted), gigabytes(converted.rss)],
            [
                "ratio",
                f"{converted.seconds / copied.seconds:.2f}",
                f"{converted.flushed / copied.flushed:.2f}",
                "",
            ],
        ]
    )


def _median_run(runs: list[Run]) -> Run:
    """The median of each time; of the memory, the largest."""
    return Run(
        statistics.median(run.seconds for run in runs),
        statistics.median(run.flushed for run in runs),
        statistics.median(run.processor for run in runs),
        max(run.rss for run in runs),
    )


def _times(run: Run) -> list[str]:
    return [f"{run.seconds:.1f} s", f"{run.flushed:.1f} s"]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Time a conversion against cp.")
    parser.add_argument("src", type=Path, help="a checkpoint as published, or make_checkpoint.py's")
    parser.add_argument("dst", type=Path, help="a new folder on the disk to be measured")
    parser.add_argument("--dense", choices=["bf16", "q8", "q4"], default="q8")
    parser.add_argument("--rounds", type=int, default=3)
    return parser


if __name__ == "__main__":
    main()
