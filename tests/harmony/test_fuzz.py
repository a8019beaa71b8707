"""Random ids: the parser keeps its promises, and what it found can be rendered."""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from dataclasses import replace

import pytest

from gptoss_mlx.harmony import Message, Setup, parse, prune, render
from gptoss_mlx.tokenizer import (
    CALL,
    CHANNEL,
    CONSTRAIN,
    END,
    ENDOFTEXT,
    MESSAGE,
    START,
    VOCAB_SIZE,
    Tokenizer,
)

from .completions import STOPS, checked_parse

pytestmark = pytest.mark.slow

FUZZ_COUNT = int(os.environ.get("GPTOSS_MLX_FUZZ", "20000"))


def test_random_ids(tokenizer: Tokenizer) -> None:
    """Whatever ids come, the parser keeps its promises, and what it found can be rendered."""
    rng = random.Random(20261121)
    words = header_words(tokenizer)
    texts = text_tokens(tokenizer)
    found: dict[Message, Message] = {}  # by header: rendering is slow
    for _ in range(FUZZ_COUNT):
        ids = random_completion(rng, words, texts)
        messages = checked_parse(ids, tokenizer)
        assert is_subsequence(content_sections(ids, tokenizer), [m.content for m in messages]), ids
        for message in messages:
            if message.ids is not None:
                check_ids(message, tokenizer)
            found.setdefault(replace(message, content=""), replace(message, ids=None))
    render_all([*found.values()], tokenizer)


def check_ids(message: Message, tokenizer: Tokenizer) -> None:
    """Only well-formed messages have ids, and these are the message."""
    ids = message.ids
    assert ids is not None
    assert ids[0] == START
    assert ids[-1] in (END, CALL)
    body = ids[1:-1]
    assert body.count(MESSAGE) == 1
    assert not {START, *STOPS} & set(body)
    content = body[body.index(MESSAGE) + 1 :]
    assert not any(tokenizer.is_special(i) for i in content), ids
    (again,) = parse(ids, tokenizer)
    assert (again, again.ids) == (message, ids)


def render_all(messages: Sequence[Message], tokenizer: Tokenizer) -> None:
    """Render every message, none pruned: finals first, so that all others come after the last."""
    ordered = sorted(messages, key=lambda message: not message.is_final)
    assert prune(ordered) == ordered
    assert len(render(Setup(), ordered, tokenizer)) > len(messages)


def content_sections(ids: Sequence[int], tokenizer: Tokenizer) -> list[str]:
    """The text between each <|message|> and the marker that ends it, by another algorithm."""
    sections: list[str] = []
    content: list[int] | None = None
    for i in [*ids, END]:
        if content is None:
            content = [] if i == MESSAGE else None
        elif i in (START, CHANNEL, *STOPS):
            sections.append(tokenizer.decode(content))
            content = None
        elif 0 <= i < ENDOFTEXT - 1:
            content.append(i)
    return sections


def is_subsequence(parts: Sequence[str], whole: Sequence[str]) -> bool:
    """Whether all parts are in the whole, in their order."""
    rest = iter(whole)
    return all(part in rest for part in parts)


def header_words(tokenizer: Tokenizer) -> list[list[int]]:
    """What headers are made of, each as its ids."""
    words = "assistant|user|tool|system|python|functions.f|analysis|commentary|final|foo"
    words += "| to=functions.f| to=python| to=assistant| to=| json| code| to=functions.a b"
    return [tokenizer.encode(word) for word in words.split("|")]


def text_tokens(tokenizer: Tokenizer) -> list[int]:
    """Ids of text, among them single bytes of characters."""
    return tokenizer.encode('Hello, wörld! 🫠🫥 한국어 <|end|> {"a": [1]}\n\r\t\x00 \u2028')


def random_completion(
    rng: random.Random, words: Sequence[Sequence[int]], texts: Sequence[int]
) -> list[int]:
    """Markers, header words, text and any ids at all, mixed; sometimes a well-formed header."""
    ids: list[int] = []
    for _ in range(rng.randrange(1, 16)):
        kind = rng.random()
        if kind < 0.15:
            ids += [START, *rng.choice(words), CHANNEL, *rng.choice(words), MESSAGE]
        elif kind < 0.5:
            ids.append(rng.choice((START, CHANNEL, CONSTRAIN, MESSAGE, *STOPS)))
        elif kind < 0.65:
            ids += rng.choice(words)
        elif kind < 0.95:
            ids.append(rng.choice(texts))
        else:
            ids.append(rng.randrange(-2, VOCAB_SIZE + 2))
    return ids
