"""Completions drawn under a grammar: by chance alone, and from a model.

A loop of its own, so that grammars are tested without the engine.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from gptoss_mlx.grammar import Grammar, Matcher
from gptoss_mlx.model import Model
from gptoss_mlx.tokenizer import Tokenizer
from gptoss_mlx.vocabulary import NUM_ORDINARY

__all__ = ["Walk", "allowed", "answer_of", "follow", "generate", "stroll"]

Ids = NDArray[np.int64]


@dataclass
class Walk:
    """A completion, whether it came to its end, and the seconds that each mask took."""

    ids: list[int] = field(default_factory=list[int])
    is_finished: bool = False
    seconds: list[float] = field(default_factory=list[float])


def allowed(matcher: Matcher) -> Ids:
    """The ids that a matcher's mask has, ascending."""
    mask = matcher.mask()
    assert mask is not None
    return _ids_of(mask)


def _ids_of(mask: NDArray[np.uint32]) -> Ids:
    return np.flatnonzero(np.unpackbits(mask.view(np.uint8), bitorder="little"))


def follow(grammar: Grammar, ids: Sequence[int]) -> Matcher:
    """A matcher that has gone through these ids, each of which its mask must have."""
    matcher = grammar.matcher()
    for n, i in enumerate(ids):
        mask = matcher.mask()
        assert mask is not None
        assert mask[i // 32] >> i % 32 & 1, f"id {i} at {n} is forbidden"
        matcher.advance(i)
    return matcher


def stroll(grammar: Grammar, tokenizer: Tokenizer, seed: int, limit: int = 2000) -> Walk:
    """Draw uniformly from what is allowed, with a liking for tokens that end something."""
    rng = np.random.default_rng(seed)
    matcher, walk = grammar.matcher(), Walk()
    closing = np.array([i for text in ('"', "}", "]") for i in tokenizer.encode(text)])
    while not matcher.is_finished and len(walk.ids) < limit:
        ids = allowed(matcher)
        ends = ids[ids >= NUM_ORDINARY] if len(ids) > 100 else ids
        if not len(ends) and rng.random() < 0.3:
            ends = closing[np.isin(closing, ids, kind="table")]
        walk.ids.append(int(rng.choice(ends if len(ends) and rng.random() < 0.5 else ids)))
        matcher.advance(walk.ids[-1])
    walk.is_finished = matcher.is_finished
    return walk


def generate(
    model: Model, prompt: Sequence[int], grammar: Grammar, seed: int, limit: int = 1500
) -> Walk:
    """Draw from a model at temperature 1 among what is allowed, until the end or `limit` tokens."""
    rng = np.random.default_rng(seed)
    matcher, walk, cache = grammar.matcher(), Walk(), model.new_cache()
    unseen = list(prompt)  # what the model has not been given yet
    while not matcher.is_finished and len(walk.ids) < limit:
        started = time.perf_counter()
        mask = matcher.mask()
        walk.seconds.append(time.perf_counter() - started)
        assert mask is not None
        ids = _ids_of(mask)
        if len(ids) > 1:
            logits = model.logits(model.hidden_states(mx.array([unseen]), cache)[:, -1:])
            scores = np.array(logits.astype(mx.float32)).astype(np.float64).reshape(-1)[ids]
            ids, unseen = ids[[np.argmax(scores + rng.gumbel(size=len(ids)))]], []
        walk.ids.append(int(ids[0]))
        unseen.append(walk.ids[-1])
        matcher.advance(walk.ids[-1])
    walk.is_finished = matcher.is_finished
    return walk


def answer_of(walk: Walk, tokenizer: Tokenizer) -> str:
    """The text of a completion's last message."""
    text = tokenizer.decode(walk.ids[:-1])
    return text.rpartition("<|message|>")[2]
