"""The tokenizer: special tokens, round trips, and a start without network, cache or vocabulary."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gptoss_mlx import tokenizer as tokens
from gptoss_mlx.tokenizer import STOP_TOKENS, VOCAB_SIZE, Tokenizer, load_tokenizer
from gptoss_mlx.vocabulary import NUM_ORDINARY

SPECIAL = {
    "<|endoftext|>": 199_999,
    "<|return|>": 200_002,
    "<|constrain|>": 200_003,
    "<|channel|>": 200_005,
    "<|start|>": 200_006,
    "<|end|>": 200_007,
    "<|message|>": 200_008,
    "<|call|>": 200_012,
}
TEXTS = [
    "",
    " ",
    "Hello, world!",
    "naïve 🫠 🏴‍☠️ 한국어 مرحبا 𝔘𝔫𝔦",
    "  indented\n\n\ttabs\r\n and trailing   ",
    "\x00\x7f\u200b\ufeff\ufffd",
    "12345678901234567890",
    "<|start|>system<|message|>no<|end|>",
    "<|endoftext|><|reserved_200013|>",
]
# Nothing listens on the discard port, and openai-harmony's own downloads respect this variable.
NO_NETWORK = {"ALL_PROXY": "http://127.0.0.1:9", "HTTPS_PROXY": "http://127.0.0.1:9"}
ENCODE = """
import socket
socket.socket.connect = socket.getaddrinfo = None
from gptoss_mlx.tokenizer import load_tokenizer
print(load_tokenizer().encode("Hello, world!"))
"""

REPORT = """
from gptoss_mlx.errors import VocabularyError
from gptoss_mlx.tokenizer import load_tokenizer
try:
    load_tokenizer()
except VocabularyError as error:
    print(error)
"""


@pytest.mark.parametrize(("text", "i"), SPECIAL.items())
def test_special_tokens(tokenizer: Tokenizer, text: str, i: int) -> None:
    """Each marker has its published id, its constant and its spelling."""
    assert tokenizer.encode_with_special(text) == [i]
    assert tokenizer.decode([i]) == text
    assert getattr(tokens, text.strip("<|>").upper()) == i
    assert tokenizer.is_special(i)


def test_stop_tokens() -> None:
    """Generation stops where OpenAI's generation_config.json says."""
    assert STOP_TOKENS == (200_002, 199_999, 200_012)


@pytest.mark.parametrize("text", TEXTS)
def test_round_trips(tokenizer: Tokenizer, text: str) -> None:
    """Text comes back as it was, and none of it becomes a special token."""
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert tokenizer.decode_bytes(ids) == text.encode()
    assert not any(tokenizer.is_special(i) for i in ids)


def test_known_ids(tokenizer: Tokenizer) -> None:
    """The ids are those of o200k."""
    assert tokenizer.encode("Hello, world!") == [13225, 11, 2375, 0]


def test_every_id_decodes(tokenizer: Tokenizer) -> None:
    """Every id of the embedding table has bytes, the reserved and unused ones included."""
    lengths = [len(tokenizer.decode_bytes([i])) for i in range(NUM_ORDINARY - 50, VOCAB_SIZE)]
    assert min(lengths) > 0


def test_bytes_of_pieces(tokenizer: Tokenizer) -> None:
    """Tokens that split a character give its bytes, and text only together."""
    pieces = tokenizer.encode("🫠")
    assert len(pieces) > 1
    assert b"".join(tokenizer.decode_bytes([i]) for i in pieces) == "🫠".encode()
    assert tokenizer.decode(pieces[:1]) == "\ufffd"


@pytest.mark.parametrize("ids", [[-1], [VOCAB_SIZE], [0, 1 << 40]])
def test_ids_outside_the_vocabulary(tokenizer: Tokenizer, ids: list[int]) -> None:
    """An id that no token has is a ValueError."""
    with pytest.raises(ValueError, match=r"0\.\.201087"):
        tokenizer.decode(ids)


def test_loaded_once() -> None:
    """Loading takes time, so it happens once."""
    assert load_tokenizer() is load_tokenizer()


@pytest.mark.parametrize("home", ["writable", "read-only"])
def test_without_network_and_cache(tmp_path: Path, home: str) -> None:
    """A first start needs neither the network nor a cache folder that can be written."""
    cache = tmp_path / "cache"
    if home == "read-only":
        cache.write_text("a file, so no folder can be made here")
    result = run_python(ENCODE, XDG_CACHE_HOME=str(cache), TMPDIR=str(tmp_path))
    assert (result.returncode, result.stdout) == (0, "[13225, 11, 2375, 0]\n"), result.stderr
    (vocabulary,) = tmp_path.rglob("o200k_base.tiktoken")
    assert vocabulary.is_relative_to(cache) == (home == "writable")


@pytest.mark.parametrize("contents", [None, "", "nonsense"])
def test_a_misleading_folder(tmp_path: Path, contents: str | None) -> None:
    """TIKTOKEN_ENCODINGS_BASE without the vocabulary is an error that names the variable."""
    if contents is not None:
        (tmp_path / "o200k_base.tiktoken").write_text(contents)
    result = run_python(REPORT, TIKTOKEN_ENCODINGS_BASE=str(tmp_path))
    assert f"TIKTOKEN_ENCODINGS_BASE={tmp_path}" in result.stdout, result.stderr


def run_python(script: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a script in a process of its own, without the network, with these variables."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("TIKTOKEN")}
    return subprocess.run(
        [sys.executable, "-c", script],
        env={**environment, **NO_NETWORK, **variables},
        capture_output=True,
        text=True,
        timeout=60,
    )
