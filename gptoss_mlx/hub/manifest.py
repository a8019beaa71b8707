"""Which files of a repository are needed: those of one checkpoint, and the tokenizer's.

OpenAI's repositories hold the weights three times: in `original/`, for Hugging Face's libraries at
the top, and in `metal/`. It knows names and sizes only, neither the network nor the disk.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

__all__ = ["Manifest", "RemoteFile", "Source", "choose_source", "is_needed", "is_tokenizer"]

Source = Literal["original", "hf", "mlx"]

_CONFIG = "config.json"
_WEIGHTS = r"[^/]+\.safetensors(\.index\.json)?"
_TOKENIZER = r"(tokenizer|tokenizer_config|special_tokens_map)\.json|chat_template\.jinja"
_AT_THE_TOP = re.compile(rf"(generation_)?config\.json|{_WEIGHTS}|{_TOKENIZER}")
# the original's tokenizer lies one folder up, where convert looks for it
_ORIGINAL = re.compile(rf"original/(config\.json|{_WEIGHTS})|{_TOKENIZER}")


@dataclass(frozen=True)
class RemoteFile:
    """A file of a repository. `etag`: its sha256, or if it lies in git the sha1 of its git blob."""

    name: str
    size: int
    etag: str | None

    @property
    def is_weights(self) -> bool:
        """Whether it holds tensors."""
        return self.name.endswith(".safetensors")


@dataclass(frozen=True)
class Manifest:
    """What is to be had of a repository, at one commit of it; is_cached: as far as is known."""

    repo: str
    revision: str
    commit: str
    source: Source
    files: tuple[RemoteFile, ...]
    is_cached: bool = False

    @property
    def nbytes(self) -> int:
        """All files."""
        return sum(file.size for file in self.files)

    @property
    def weights_bytes(self) -> int:
        """Those with tensors."""
        return sum(file.size for file in self.files if file.is_weights)

    @property
    def config(self) -> RemoteFile:
        """The file that says what the checkpoint is."""
        name = f"{self.subfolder}/{_CONFIG}".lstrip("/")
        return next(file for file in self.files if file.name == name)

    @property
    def subfolder(self) -> str:
        """Where in the repository the checkpoint lies."""
        return "original" if self.source == "original" else ""


def choose_source(names: Collection[str], *, is_mlx: bool) -> Source:
    """What to take of a repository if nothing was said: OpenAI's own files, if they are there."""
    if f"original/{_CONFIG}" in names:
        return "original"
    return "mlx" if is_mlx else "hf"


def is_needed(name: str, source: Source) -> bool:
    """Whether a file belongs to the checkpoint, or to its tokenizer."""
    return bool((_ORIGINAL if source == "original" else _AT_THE_TOP).fullmatch(name))


def is_tokenizer(name: str) -> bool:
    """Whether a file belongs to the tokenizer, which checkpoints of a repository share."""
    return bool(re.fullmatch(_TOKENIZER, name))
