"""Masks, and the states between them."""

from __future__ import annotations

import numpy as np
import pytest

from gptoss_mlx.errors import GrammarError
from gptoss_mlx.grammar import GrammarSpec, choice, compile_grammar, json_object, lark
from gptoss_mlx.tokenizer import CHANNEL, RETURN, STOP_TOKENS, VOCAB_SIZE, Tokenizer
from gptoss_mlx.vocabulary import NUM_ORDINARY

from .walks import allowed, follow

SPEC = GrammarSpec(choice(["yes", "no"]))
ANSWER = "<|channel|>final<|message|>"


def test_a_mask_is_a_bit_a_token(tokenizer: Tokenizer) -> None:
    """V / 32 words, lowest bit first."""
    mask = compile_grammar(SPEC, tokenizer).matcher().mask()
    assert mask is not None
    assert (mask.shape, mask.dtype) == ((VOCAB_SIZE // 32,), np.uint32)
    assert np.flatnonzero(mask).tolist() == [CHANNEL // 32]
    assert mask[CHANNEL // 32] == 1 << CHANNEL % 32


def test_equal_specifications_share_a_grammar(tokenizer: Tokenizer) -> None:
    """Nothing is compiled twice."""
    grammar = compile_grammar(SPEC, tokenizer)
    assert compile_grammar(GrammarSpec(choice(["yes", "no"])), tokenizer) is grammar
    assert compile_grammar(GrammarSpec(choice(["no", "yes"])), tokenizer) is not grammar


def test_matchers_are_independent(tokenizer: Tokenizer) -> None:
    """A grammar is not used up, and a copy goes its own way."""
    grammar = compile_grammar(SPEC, tokenizer)
    first = follow(grammar, tokenizer.encode_with_special(ANSWER))
    assert allowed(grammar.matcher()).tolist() == [CHANNEL]
    other = first.copy()
    for matcher, word in ((first, "yes"), (other, "no")):
        for i in [*tokenizer.encode(word), RETURN]:
            assert not matcher.is_finished
            matcher.advance(i)
        assert matcher.is_finished


def test_what_is_forced_is_the_only_way(tokenizer: Tokenizer) -> None:
    """The masks along the forced ids have one bit each, and they spell as the tokenizer does."""
    grammar = compile_grammar(GrammarSpec(choice(["a very long answer: yes"])), tokenizer)
    matcher, ids = grammar.matcher(), tokenizer.encode_with_special("<|channel|>")
    matcher.advance(CHANNEL)
    matcher.advance(tokenizer.encode("final")[0])
    forced = matcher.forced()
    ids = tokenizer.encode_with_special("<|message|>a very long answer: yes<|return|>")
    assert forced == ids
    for i in forced:
        assert allowed(matcher).tolist() == [i]
        matcher.advance(i)
    assert matcher.is_finished


def test_the_end(tokenizer: Tokenizer) -> None:
    """After the stop there is no mask, nothing is forced, and no token is allowed."""
    grammar = compile_grammar(SPEC, tokenizer)
    matcher = follow(grammar, tokenizer.encode_with_special(ANSWER + "yes<|return|>"))
    assert matcher.is_finished
    assert matcher.mask() is None
    assert matcher.forced() == []
    for token in (0, *STOP_TOKENS):
        with pytest.raises(GrammarError, match="not allowed"):
            matcher.advance(token)


@pytest.mark.parametrize("token", [-1, 0, RETURN, 200_013, VOCAB_SIZE - 1, VOCAB_SIZE, 1 << 40])
def test_a_forbidden_token_changes_nothing(tokenizer: Tokenizer, token: int) -> None:
    """It raises, and the matcher goes on from where it was."""
    matcher = compile_grammar(SPEC, tokenizer).matcher()
    with pytest.raises(GrammarError, match=f"token {token} is not allowed"):
        matcher.advance(token)
    assert allowed(matcher).tolist() == [CHANNEL]


def test_reserved_ids_are_never_allowed(tokenizer: Tokenizer) -> None:
    """Where any text is, of all ids beyond the text only the end is allowed."""
    for spec in (GrammarSpec(), GrammarSpec(json_object()), GrammarSpec(lark("start: /(?s:.*)/"))):
        matcher = compile_grammar(spec, tokenizer).matcher()
        for i in tokenizer.encode_with_special(ANSWER):
            matcher.advance(i)
        if spec.answer == json_object():
            for i in tokenizer.encode('{"'):
                matcher.advance(i)
        ids = allowed(matcher)
        assert len(ids) > 100_000
        assert set(ids[ids >= NUM_ORDINARY].tolist()) <= {RETURN}


def test_a_dead_end_is_an_error(tokenizer: Tokenizer) -> None:
    """A grammar that cannot go on says so when it comes to that, and not with an empty mask."""
    grammar = compile_grammar(GrammarSpec(lark(r'start: "a" /[^\s\S]/')), tokenizer)
    matcher = follow(grammar, tokenizer.encode_with_special(ANSWER + "a"))
    with pytest.raises(GrammarError, match="the grammar leads nowhere: no text can fit it"):
        matcher.mask()


@pytest.mark.parametrize("endless", ['start: "a" start', 'start: "a" /b<+/ "</a>"'])
def test_endless_grammars_cost_no_time(tokenizer: Tokenizer, endless: str) -> None:
    """A Lark grammar without an end goes on token by token; nothing is forced far ahead."""
    grammar = compile_grammar(GrammarSpec(lark(endless)), tokenizer)
    matcher = follow(grammar, tokenizer.encode_with_special(ANSWER + "a"))
    for _ in range(20):
        matcher.advance(int(allowed(matcher)[0]))
    assert matcher.forced() == []
    assert not matcher.is_finished
