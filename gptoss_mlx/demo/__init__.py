"""The embedded demo checkpoint: a real gpt-oss, ten thousand times too small to know anything.

It has everything that makes a gpt-oss checkpoint one (sinks, sliding windows, YaRN, a top-4 router,
MXFP4 experts, the 201,088-token vocabulary, OpenAI's original file layout) and it speaks harmony:
it reasons, answers, and calls tools. It is there so that everything else can be tried and tested
without a download. It is not a distilled gpt-oss and not OpenAI's work: it was trained from nothing
on generated dialogues (train.py; README.md says what it can do).

This module only unpacks it; it imports neither mlx nor numpy.
"""

from __future__ import annotations

import lzma
import shutil
from pathlib import Path

__all__ = ["CONFIG", "DESCRIPTION", "PACKED", "unpack"]

DESCRIPTION = (
    "A tiny demo model with gpt-oss' architecture: it greets, adds numbers up to 10, knows 28 "
    "capitals, remembers your name and calls a weather tool; anything else it does not know."
)
CONFIG = "config.json"
PACKED = "model.safetensors.xz"
_HERE = Path(__file__).parent
_CHUNK = 1 << 20


def unpack(directory: Path) -> Path:
    """Write the original-layout checkpoint (config.json, model.safetensors) into a directory.

    The directory is made if it is not there. Returns it.

    Raises:
        OSError: the directory cannot be written.
    """
    directory.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(_HERE / CONFIG, directory / CONFIG)
    with (
        lzma.open(_HERE / PACKED) as packed,
        (directory / "model.safetensors").open("wb") as file,
    ):
        shutil.copyfileobj(packed, file, _CHUNK)
    return directory
