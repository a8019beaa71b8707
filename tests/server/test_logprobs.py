"""Tests of gptoss_mlx.server.logprobs."""

from __future__ import annotations

import json

from gptoss_mlx.sequence import Token
from gptoss_mlx.server.logprobs import Logprobs
from gptoss_mlx.tokenizer import END, Tokenizer


def test_tokens_of_the_open_message(tokenizer: Tokenizer) -> None:
    """Headers and markers are left out; what was taken is gone; no more are shown than asked."""
    logprobs = Logprobs(tokenizer, 1)
    for i in tokenizer.encode_with_special("<|channel|>final<|message|>Hi you<|end|>"):
        logprobs.push(Token(i, -0.5, ((i, -0.5), (0, -7.0))))
    (first,) = logprobs.take("Hi")
    assert first["token"] == "Hi"
    assert first["top_logprobs"] == [{"token": "Hi", "bytes": [72, 105], "logprob": -0.5}]
    assert [entry["token"] for entry in logprobs.take(" you")] == [" you"]
    assert logprobs.take("") == []


def test_tokens_of_half_a_character(tokenizer: Tokenizer) -> None:
    """They come with the character."""
    logprobs = Logprobs(tokenizer, 0)
    halves = tokenizer.encode("🫠")
    assert len(halves) > 1
    for i in halves:
        assert logprobs.take("") == []
        logprobs.push(Token(i, -0.5))
    entries = logprobs.take("🫠")
    assert bytes(b for entry in entries for b in entry["bytes"]) == "🫠".encode()


def test_text_that_is_held_back(tokenizer: Tokenizer) -> None:
    """Tokens wait for it; those of a message that is over are forgotten."""
    logprobs = Logprobs(tokenizer, 0)
    ids = tokenizer.encode("It rains today")
    for i in ids:
        logprobs.push(Token(i, -0.5))
    assert [entry["token"] for entry in logprobs.take("It ra")] == ["It"]
    assert [entry["token"] for entry in logprobs.take("ins")] == [" rains"]
    logprobs.clear()
    assert logprobs.take(" today") == []


def test_impossible_tokens_are_json(tokenizer: Tokenizer) -> None:
    """Minus infinity is a number that JSON has; bytes of half a character are bytes."""
    logprobs = Logprobs(tokenizer, 1)
    half = tokenizer.encode("🫠")[0]
    logprobs.push(Token(half, float("-inf"), ((END, float("-inf")),)))
    (entry,) = logprobs.take("🫠")
    assert (entry["logprob"], entry["token"]) == (-9999.0, "\ufffd")
    assert entry["top_logprobs"][0]["logprob"] == -9999.0
    assert bytes(entry["bytes"]) == tokenizer.decode_bytes([half])
    json.dumps(entry, allow_nan=False)
