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

__all__ = ["add_tokenizer"]

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


def add_tokenizer(source: Path, destination: Path) -> None:
    """Put the tokenizer's files into a converted checkpoint.

    Args:
        source: the source checkpoint; OpenAI's `original/` has its tokenizer one folder up.
        destination: the folder that is being filled.

    Raises:
        CorruptFileError: the source's tokenizer.json is not gpt-oss's.
    """
    for folder in (source, source.parent):
        if (folder / "tokenizer.json").is_file():
            return _copy(folder, destination)
    return _write(read_vocabulary(), destination)


def _copy(folder: Path, destination: Path) -> None:
    try:
        genuine = is_genuine(vocabulary_from_hf(folder))
    except ValueError:
        genuine = False
    if not genuine:
        raise CorruptFileError(f"{folder / 'tokenizer.json'}: not gpt-oss's; download it again")
    for name in _COPIED:
        if (folder / name).is_file():
            shutil.copyfile(folder / name, destination / name)


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
