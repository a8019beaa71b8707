"""A random checkpoint of full size, or with fewer layers, in one of the published layouts.

    python benchmarks/make_checkpoint.py 20b FOLDER [--layers N] [--layout openai|huggingface]

Prints the time it took, the size and the peak memory. The weights mean nothing.
"""

from __future__ import annotations

import argparse
import resource
import time
from dataclasses import replace
from pathlib import Path

from machine import describe, gigabytes, peak_rss, print_table

from gptoss_mlx.convert.synthetic import GPT_OSS_20B, GPT_OSS_120B, write_random_checkpoint

MODELS = {"20b": GPT_OSS_20B, "120b": GPT_OSS_120B}


def main() -> None:
    """Write the checkpoint and print what it cost."""
    options = _parser().parse_args()
    config = MODELS[options.model]
    if options.layers is not None:
        config = replace(config, num_hidden_layers=options.layers)
    started = time.monotonic()
    write_random_checkpoint(
        options.folder,
        config,
        layout=options.layout,
        seed=options.seed,
        shard_bytes=options.shard_bytes,
    )
    seconds = time.monotonic() - started
    files = list(options.folder.glob("*.safetensors"))
    print(describe())
    print_table(
        [
            ["layout", "layers", "files", "size", "time", "peak RSS"],
            [
                options.layout,
                str(config.num_hidden_layers),
                str(len(files)),
                gigabytes(sum(file.stat().st_size for file in files)),
                f"{seconds:.1f} s",
                gigabytes(peak_rss(resource.getrusage(resource.RUSAGE_SELF))),
            ],
        ]
    )


def _positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError("at least one layer")
    return number


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Write a random gpt-oss checkpoint.")
    parser.add_argument("model", choices=sorted(MODELS))
    parser.add_argument("folder", type=Path, help="must not exist")
    parser.add_argument("--layers", type=_positive, help="fewer layers than the model has")
    parser.add_argument("--layout", choices=["openai", "huggingface"], default="openai")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--shard-bytes", type=int, default=1 << 62, help="largest file (default: all in one)"
    )
    return parser


if __name__ == "__main__":
    main()
