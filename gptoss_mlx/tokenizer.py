"""Text <-> o200k_harmony ids, offline.

openai-harmony tokenizes; it looks for `o200k_base.tiktoken` in the folder that the environment
variable TIKTOKEN_ENCODINGS_BASE names and otherwise downloads it. So the file is laid down, and the
variable set, before harmony asks. It does not know what a message is: that is harmony.py.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from openai_harmony import (
    HarmonyEncoding,
    HarmonyError,  # pyright: ignore[reportUnknownVariableType]  (a compiled class)
    load_harmony_encoding,
)

from gptoss_mlx.errors import VocabularyError
from gptoss_mlx.vocabulary import NUM_ORDINARY, VOCABULARY_FILE, vocabulary_folder

__all__ = [
    "CALL",
    "CHANNEL",
    "CONSTRAIN",
    "END",
    "ENDOFTEXT",
    "MESSAGE",
    "RETURN",
    "START",
    "STOP_TOKENS",
    "VOCAB_SIZE",
    "Tokenizer",
    "load_tokenizer",
]

VOCAB_SIZE = 201_088
ENDOFTEXT = 199_999
RETURN = 200_002
CONSTRAIN = 200_003
CHANNEL = 200_005
START = 200_006
END = 200_007
MESSAGE = 200_008
CALL = 200_012
STOP_TOKENS = (RETURN, ENDOFTEXT, CALL)  # in the order of OpenAI's generation_config.json

_FOLDER_VARIABLE = "TIKTOKEN_ENCODINGS_BASE"


class Tokenizer:
    """o200k_harmony: ordinary text in, ids out; ids in, bytes or text out."""

    def __init__(self, encoding: HarmonyEncoding) -> None:
        self.encoding = encoding

    def encode(self, text: str) -> list[int]:
        """The ids of plain text; text that looks like a special token stays plain text."""
        return self.encoding.encode(text, disallowed_special=())

    def encode_with_special(self, text: str) -> list[int]:
        """The ids of text in which `<|start|>` and its like mean the special tokens."""
        return self.encoding.encode(text, allowed_special="all")

    def decode_bytes(self, ids: Sequence[int]) -> bytes:
        """The bytes of ids, special tokens spelled out.

        Raises:
            ValueError: an id is outside the vocabulary.
        """
        if any(not 0 <= i < VOCAB_SIZE for i in ids):
            raise ValueError(f"ids must lie in 0..{VOCAB_SIZE - 1}")
        text = self.encoding.decode(ids, errors="surrogateescape")
        return text.encode("utf-8", errors="surrogateescape")

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids; bytes that are not UTF-8 become U+FFFD."""
        return self.decode_bytes(ids).decode("utf-8", errors="replace")

    def is_special(self, i: int) -> bool:
        """Whether an id stands for a marker (or is reserved for one) and not for text."""
        return i >= NUM_ORDINARY


@lru_cache(maxsize=1)
def load_tokenizer(checkpoint: Path | None = None) -> Tokenizer:
    """The one tokenizer of all gpt-oss models, loaded once (0.4 s), without the network.

    Args:
        checkpoint: a folder whose tokenizer.json serves when no package ships the vocabulary.

    Raises:
        VocabularyError: no source of the vocabulary is at hand.
    """
    if _FOLDER_VARIABLE not in os.environ:
        os.environ[_FOLDER_VARIABLE] = str(vocabulary_folder(checkpoint))
    try:
        return Tokenizer(load_harmony_encoding("HarmonyGptOss"))
    except HarmonyError as error:  # pyright: ignore[reportUnknownVariableType]
        folder = os.environ[_FOLDER_VARIABLE]
        raise VocabularyError(
            f"{_FOLDER_VARIABLE}={folder} holds no usable {VOCABULARY_FILE}: unset it ({error})"
        ) from None
