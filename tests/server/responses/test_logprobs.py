"""Tests of gptoss_mlx.server.responses.logprobs."""

from __future__ import annotations

import json

from gptoss_mlx.sequence import Token
from gptoss_mlx.server.responses.logprobs import PendingLogprobs
from gptoss_mlx.tokenizer import END, VOCAB_SIZE, Tokenizer


def test_tokens_of_the_open_message(tokenizer: Tokenizer) -> None:
    """Headers, markers and ids that are none are left out; what was taken is gone."""
    pending = PendingLogprobs(tokenizer)
    ids = tokenizer.encode_with_special("<|channel|>final<|message|>Hi you<|end|>")
    for i in (*ids, -1, VOCAB_SIZE):
        pending.push(Token(i, -0.5, ((i, -0.5),) if i in ids else ()))
    taken = pending.take()
    assert [entry["token"] for entry in taken] == ["Hi", " you"]
    assert taken[0]["top_logprobs"] == [{"token": "Hi", "bytes": [72, 105], "logprob": -0.5}]
    assert pending.take() == []


def test_impossible_tokens_are_json(tokenizer: Tokenizer) -> None:
    """Minus infinity is a number that JSON has; bytes of half a character are bytes."""
    pending = PendingLogprobs(tokenizer)
    half = tokenizer.encode("🫠")[0]
    pending.push(Token(half, float("-inf"), ((END, float("-inf")),)))
    (entry,) = pending.take()
    assert (entry["logprob"], entry["token"]) == (-9999.0, "\ufffd")
    assert bytes(entry["bytes"]) == tokenizer.decode_bytes([half])
    json.dumps(entry, allow_nan=False)
