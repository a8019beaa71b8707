"""Random checkpoints: of the right shape, alive when run, the same for the same seed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import cast
from unittest.mock import patch

import mlx.core as mx
import numpy as np
import pytest
from checkpoints import TINY, fingerprint, read_bits

from gptoss_mlx.config import ModelConfig, read_config_file
from gptoss_mlx.convert import conversion, convert
from gptoss_mlx.convert.names import Layout, source_tensors
from gptoss_mlx.convert.synthetic import (
    GPT_OSS_20B,
    GPT_OSS_120B,
    to_bf16,
    write_random_checkpoint,
)
from gptoss_mlx.model import load_model

LAYOUTS: tuple[Layout, ...] = ("openai", "huggingface")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_config_names_and_shapes(tmp_path: Path, layout: Layout) -> None:
    """Each layout has its own spelling of config.json and exactly its own tensors."""
    write_random_checkpoint(tmp_path / "c", TINY, layout=layout)
    raw = read_config_file(tmp_path / "c" / "config.json")
    assert ("num_local_experts" in raw) == (layout == "huggingface")
    assert ModelConfig.from_dict(raw) == TINY
    shapes = {name: array.shape for name, array in read_bits(tmp_path / "c").items()}
    assert shapes == {name: t.spec.shape for name, t in source_tensors(TINY, layout).items()}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_model_is_alive(tmp_path: Path, layout: Layout) -> None:
    """Converted and run it gives logits of a spread near three, and the context matters."""
    write_random_checkpoint(tmp_path / "c", TINY, layout=layout)
    with patch.object(conversion, "add_tokenizer"):
        convert(tmp_path / "c", tmp_path / "mlx")
    model = load_model(tmp_path / "mlx", mx.float32)
    a, b = (model(mx.array([[first, 2, 3, 4]])) for first in (1, 9))
    assert 1 < cast("float", mx.std(a).item()) < 6
    assert not mx.allclose(a[:, -1], b[:, -1], atol=0.1)


def test_seeds(tmp_path: Path) -> None:
    """One seed gives the same bytes each time, another seed others."""
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        write_random_checkpoint(tmp_path / name, TINY, seed=seed)
    a, b, c = (fingerprint(tmp_path / name) for name in "abc")
    assert a == b
    assert {name for name in a if a[name] != c[name]} == {"model-00001-of-00001.safetensors"}


def test_an_existing_folder_is_not_overwritten(tmp_path: Path) -> None:
    """The folder must be new."""
    with pytest.raises(FileExistsError):
        write_random_checkpoint(tmp_path, TINY)


def test_published_sizes() -> None:
    """The two models have the tensor bytes of the published files: 13.76 GB and 65.25 GB."""
    sizes = [
        sum(t.spec.nbytes for t in source_tensors(config, "openai").values())
        for config in (GPT_OSS_20B, GPT_OSS_120B)
    ]
    assert [round(size / 1e9, 2) for size in sizes] == [13.76, 65.25]


def test_to_bf16_agrees_with_mlx() -> None:
    """Rounding to bfloat16 is to nearest, ties to even, subnormals included."""
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 1 << 32, 20_000, dtype=np.uint32)
    ties = (bits & 0xFFFF_0000) | 0x8000
    values = np.concatenate([bits, ties]).view(np.float32)
    values = values[np.isfinite(values) & (np.abs(values) < 3e38)]
    theirs = mx.array(values).astype(mx.bfloat16).view(mx.uint16)
    assert to_bf16(values).tolist() == theirs.tolist()


def test_memory_is_bounded(tmp_path: Path) -> None:
    """Neither writing nor converting a checkpoint takes memory in proportion to its size."""
    script = """
import os, resource, sys

if child := os.fork():  # a child counts its parent's memory as its own peak; a grandchild does not
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
from dataclasses import replace
from pathlib import Path
from gptoss_mlx.convert import conversion, convert, reader
from gptoss_mlx.convert.synthetic import GPT_OSS_20B, write_random_checkpoint

def peak():
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit

conversion.add_tokenizer = lambda *_: None
reader.CHUNK_BYTES = 1 << 20
start = peak()
config = replace(GPT_OSS_20B, num_hidden_layers=1, num_experts=12, vocab_size=8192)
write_random_checkpoint(Path(sys.argv[1]) / "c", config)
convert(Path(sys.argv[1]) / "c", Path(sys.argv[1]) / "out")
print(peak() - start)
"""
    command = [sys.executable, "-c", script, str(tmp_path)]
    run = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    size = sum(p.stat().st_size for p in (tmp_path / "c").glob("*.safetensors"))
    assert size > 280 << 20
    assert int(run.stdout) < 140 << 20
