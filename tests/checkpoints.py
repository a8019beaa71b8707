"""Small checkpoints for tests: made, damaged and read back without the code under test.

The sizes are odd on purpose: 257 rows of vocabulary, three MXFP4 blocks a row, three query heads to
a key head. So a chunk of rows rarely ends where a head, an expert or a tensor does.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from gptoss_mlx.config import ModelConfig
from gptoss_mlx.convert.published import GPT_OSS_20B

__all__ = [
    "BABBLER",
    "ONE_FILE",
    "SHARD",
    "TINY",
    "Damage",
    "at_call",
    "cut",
    "edit_config",
    "edit_header",
    "fingerprint",
    "json_edit",
    "names_in",
    "read_bits",
    "removal",
    "replacement",
]

Damage = Callable[[Path], object]  # does something to a folder
ONE_FILE = "model-00001-of-00001.safetensors"  # of the checkpoint `good["one"]`
SHARD = "model-00002-of-00004.safetensors"  # of `good["several"]`

# as small as can be with the whole vocabulary: its random answers are text
BABBLER = replace(
    GPT_OSS_20B,
    num_hidden_layers=2,
    num_experts=4,
    hidden_size=64,
    intermediate_size=64,
    num_attention_heads=2,
    num_key_value_heads=1,
)
TINY = ModelConfig(
    num_hidden_layers=2,
    num_experts=4,
    experts_per_token=2,
    vocab_size=257,
    hidden_size=128,
    intermediate_size=96,
    swiglu_limit=7.0,
    head_dim=32,
    num_attention_heads=6,
    num_key_value_heads=2,
    sliding_window=8,
    initial_context_length=64,
    rope_theta=150_000.0,
    rope_scaling_factor=32.0,
    rope_ntk_alpha=1.0,
    rope_ntk_beta=32.0,
)


def read_bits(folder: Path) -> dict[str, NDArray[Any]]:
    """Every tensor of a folder as unsigned integers of its own width: bfloat16 as uint16."""
    bits: dict[str, NDArray[Any]] = {}
    for path in sorted(folder.glob("*.safetensors")):
        for name, array in cast("dict[str, mx.array]", mx.load(str(path))).items():
            bits[name] = np.array(array.view(mx.uint16) if array.dtype == mx.bfloat16 else array)
    return bits


def fingerprint(folder: Path) -> dict[str, str]:
    """The sha256 of every file below a folder, by relative path."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def edit_config(folder: Path, **changes: Any) -> None:
    """Set keys of config.json; None removes one."""
    json_edit("config.json", **changes)(folder)


def json_edit(name: str, **changes: Any) -> Damage:
    """What sets keys of a JSON file in a folder; None removes one."""

    def edit(folder: Path) -> None:
        contents = {**json.loads((folder / name).read_text()), **changes}
        kept = {key: value for key, value in contents.items() if value is not None}
        (folder / name).write_text(json.dumps(kept))

    return edit


def removal(name: str) -> Damage:
    """What removes a file of a folder."""
    return lambda folder: (folder / name).unlink()


def replacement(name: str, contents: bytes) -> Damage:
    """What gives a file of a folder other contents."""
    return lambda folder: (folder / name).write_bytes(contents)


def cut(name: str, keep: int) -> Damage:
    """What keeps only the first bytes of a file; all but the last ones where `keep` is negative."""
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:keep])


def edit_header(path: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    """Rewrite the JSON header of a safetensors file, and leave its data as they are."""
    contents = path.read_bytes()
    (length,) = struct.unpack("<Q", contents[:8])
    header = json.loads(contents[8 : 8 + length])
    edit(header)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + contents[8 + length :])


def names_in(folder: Path) -> list[str]:
    """What a folder holds, hidden things too."""
    return sorted(path.name for path in folder.iterdir())


def at_call(number: int, action: Callable[[], object]) -> Callable[[int, int], None]:
    """A progress callback that does something at its n-th call, counted from 1."""
    calls = itertools.count(1)

    def on_progress(*_: int) -> None:
        if next(calls) == number:
            action()

    return on_progress
