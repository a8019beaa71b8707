"""tokenizer.json and tokenizer_config.json, as stock mlx-lm and LM Studio want them.

Copied where the source has them; otherwise made from the o200k vocabulary in the way of
transformers' own converter: the merges of a token are all its splits into two known tokens, in the
order of their ranks. gptoss-mlx itself reads neither. The pattern is that of tiktoken's
openai_public.py.
"""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gptoss_mlx.errors import CorruptFileError
from gptoss_mlx.vocabulary import (
    NUM_ORDINARY,
    byte_alphabet,
    is_genuine,
    read_vocabulary,
    vocabulary_from_hf,
)

__all__ = ["add_tokenizer", "find_tokenizer"]

_COPIED = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
)
_BYTE_LEVEL: dict[str, Any] = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}
_CASES = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_CONTRACTION = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
_PATTERN = "|".join(
    [
        rf"[^\r\n\p{{L}}\p{{N}}]?{_CASES[0]}*{_CASES[1]}+{_CONTRACTION}",
        rf"[^\r\n\p{{L}}\p{{N}}]?{_CASES[0]}+{_CASES[1]}*{_CONTRACTION}",
        r"\p{N}{1,3}",
        r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    ]
)
_SPECIAL = {
    199_998: "<|startoftext|>",
    199_999: "<|endoftext|>",
    200_002: "<|return|>",
    200_003: "<|constrain|>",
    200_005: "<|channel|>",
    200_006: "<|start|>",
    200_007: "<|end|>",
    200_008: "<|message|>",
    200_012: "<|call|>",
    200_018: "<|endofprompt|>",
}


def find_tokenizer(checkpoint: Path) -> Path | None:
    """The folder with the checkpoint's own tokenizer, if there is one.

    OpenAI's `original/` has its tokenizer one folder up; another model's that lies there is no
    concern of ours.

    Raises:
        CorruptFileError: the checkpoint's tokenizer.json is not gpt-oss's.
    """
    checkpoint = checkpoint.resolve()
    if (checkpoint / "tokenizer.json").is_file():
        if not _has_genuine(checkpoint):
            file = checkpoint / "tokenizer.json"
            raise CorruptFileError(f"{file}: not gpt-oss's; download it again")
        return checkpoint
    return checkpoint.parent if _has_genuine(checkpoint.parent) else None


def add_tokenizer(source: Path | None, destination: Path) -> None:
    """Put the tokenizer's files into a folder: copies of those found, or made from nothing."""
    if source is None:
        return _write(read_vocabulary(), destination)
    for name in _COPIED:
        if (source / name).is_file():
            shutil.copyfile(source / name, destination / name)
    return None


def _has_genuine(folder: Path) -> bool:
    try:
        return is_genuine(vocabulary_from_hf(folder))
    except (OSError, ValueError):
        return False


def _write(vocabulary: bytes, destination: Path) -> None:
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [_added_token(i) for i in range(NUM_ORDINARY, max(_SPECIAL) + 1)],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {
                    "type": "Split",
                    "pattern": {"Regex": _PATTERN},
                    "behavior": "Isolated",
                    "invert": False,
                },
                {**_BYTE_LEVEL, "trim_offsets": True},
            ],
        },
        "post_processor": {**_BYTE_LEVEL, "trim_offsets": False},
        "decoder": {**_BYTE_LEVEL, "trim_offsets": True},
        "model": _bpe(vocabulary),
    }
    settings = {
        "clean_up_tokenization_spaces": False,
        "eos_token": "<|return|>",
        "model_max_length": 131_072,
        "pad_token": "<|endoftext|>",
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    text = json.dumps(tokenizer, ensure_ascii=False, separators=(",", ":"))
    (destination / "tokenizer.json").write_text(text, encoding="utf-8")
    (destination / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")


def _added_token(i: int) -> dict[str, Any]:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": i, "content": _SPECIAL.get(i, f"<|reserved_{i}|>"), **flags, "special": True}


def _bpe(vocabulary: bytes) -> dict[str, Any]:
    tokens = [base64.b64decode(line.split()[0]) for line in vocabulary.splitlines()]  # by rank
    alphabet = byte_alphabet()
    spelled = ["".join(alphabet[byte] for byte in token) for token in tokens]
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": False,
        "vocab": {text: rank for rank, text in enumerate(spelled)},
        "merges": [[spelled[a], spelled[b]] for a, b in _merges(tokens)],
    }


def _merges(tokens: list[bytes]) -> Iterator[tuple[int, int]]:
    """The ranks of both halves, for all splits of each token into two known ones."""
    rank_of = {token: rank for rank, token in enumerate(tokens)}
    for token in tokens:
        known: list[tuple[int, int]] = []
        for cut in range(1, len(token)):
            left = rank_of.get(token[:cut])
            right = None if left is None else rank_of.get(token[cut:])
            if left is not None and right is not None:
                known.append((left, right))
        yield from sorted(known)
