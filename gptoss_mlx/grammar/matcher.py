"""Compiled grammars, and completions on their way through them.

A mask is a bit a token, from llguidance, which is given the vocabulary's bytes once. It does not
know how logits are masked.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper
from numpy.typing import NDArray

from gptoss_mlx.errors import GrammarError
from gptoss_mlx.grammar.envelope import GrammarSpec, write_envelope
from gptoss_mlx.grammar.formats import Format
from gptoss_mlx.tokenizer import (
    CALL,
    CHANNEL,
    CONSTRAIN,
    END,
    ENDOFTEXT,
    MESSAGE,
    RETURN,
    START,
    VOCAB_SIZE,
    Tokenizer,
)

__all__ = ["Grammar", "Matcher", "compile_grammar", "format_problem"]

_MARKERS = (CALL, CHANNEL, CONSTRAIN, END, ENDOFTEXT, MESSAGE, RETURN, START)


class Matcher:
    """One completion on its way through a grammar."""

    def __init__(self, state: LLMatcher) -> None:
        self._state = state

    @property
    def is_finished(self) -> bool:
        """Whether the stop token has come."""
        return self._state.is_accepting()

    def mask(self) -> NDArray[np.uint32] | None:
        """The tokens allowed next (V/32,): bit i % 32 of word i // 32. None once finished.

        Raises:
            GrammarError: nothing can follow, or the grammar is too complex at this place.
        """
        if self.is_finished:
            return None
        bits = self._state.compute_bitmask()
        _raise_error(self._state, "the grammar leads nowhere")
        return np.frombuffer(bits, np.uint32)[: VOCAB_SIZE // 32]  # a spare word follows

    def forced(self) -> list[int]:
        """The ids that must come next, as the tokenizer spells them; often none."""
        return [] if self.is_finished else self._state.compute_ff_tokens()

    def advance(self, token: int) -> None:
        """The completion grows by a token.

        Raises:
            GrammarError: the grammar does not allow it here (and nothing has changed), or is too
                complex beyond it.
        """
        possible = 0 <= token < VOCAB_SIZE and not self.is_finished
        if not possible or self._state.try_consume_tokens([token]) != 1:
            _raise_error(self._state, "the grammar leads nowhere")
            raise GrammarError(f"token {token} is not allowed here")

    def copy(self) -> Matcher:
        """Another completion that has come as far (takes microseconds)."""
        return Matcher(self._state.deep_copy())


@dataclass(frozen=True)
class Grammar:
    """A compiled grammar; `source` is the Lark text that llguidance was given."""

    source: str
    _start: LLMatcher = field(repr=False, compare=False)

    def matcher(self) -> Matcher:
        """A matcher at the beginning of a completion."""
        return Matcher(self._start.deep_copy())


@lru_cache(maxsize=64)
def compile_grammar(spec: GrammarSpec, tokenizer: Tokenizer) -> Grammar:
    """The grammar of a specification; the same object for an equal one.

    The first call also builds the vocabulary's trie, which takes a second or two.

    Raises:
        GrammarError: a format cannot be used; one line that says which and why.
    """
    for place, form in spec.formats.items():
        problem = form and format_problem(form, tokenizer)
        if problem:
            raise GrammarError(f"{place}: {problem}")
    source = write_envelope(spec, tokenizer)
    return Grammar(source, _start_of(source, "all formats together", _vocabulary(tokenizer)))


@lru_cache(maxsize=256)
def format_problem(form: Format, tokenizer: Tokenizer) -> str | None:
    """Why a format cannot be used, in one line; None: it can be."""
    place = f"not a usable {form.kind}"
    try:
        start = _start_of(form.alone(), place, _vocabulary(tokenizer))
        start.compute_bitmask()  # some are found to be too complex, or impossible, only here
        _raise_error(start, place)
    except GrammarError as error:
        return str(error)
    return None


def _start_of(source: str, place: str, vocabulary: LLTokenizer) -> LLMatcher:
    start = LLMatcher(vocabulary, LLMatcher.grammar_from_lark(source), log_level=0)
    _raise_error(start, place)
    return start


def _raise_error(state: LLMatcher, place: str) -> None:
    if state.is_error():
        raise GrammarError(f"{place}: {_one_line(state.get_error())}")


def _one_line(message: str) -> str:
    """The line of llguidance's message that says what is wrong."""
    lines = [line.strip() for line in message.splitlines() if line.strip()] or ["unknown error"]
    causes = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    line = (causes or lines)[0]
    if line.startswith("NoExtension"):
        return "no text can fit it"
    line = re.sub(r"^at \d+\(\d+\): |failed to compile JSON schema: ", "", line)  # a rule's place
    line = re.sub(r"^(\d+)\((\d+)\): ", r"line \1, column \2: ", line)
    return line if len(line) <= 300 else line[:300] + "…"


class _Spelling:
    """What llguidance asks of a tokenizer. Reserved ids have no bytes, so nothing allows them."""

    eos_token_id = ENDOFTEXT  # allowed after the end of a grammar: after our own stop tokens
    bos_token_id = None
    special_token_ids = _MARKERS

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._encode = tokenizer.encode
        self.tokens = [_bytes_of(i, tokenizer) for i in range(VOCAB_SIZE)]

    def __call__(self, text: str) -> list[int]:
        return self._encode(text)


def _bytes_of(i: int, tokenizer: Tokenizer) -> bytes:
    if tokenizer.is_special(i) and i not in _MARKERS:
        return b""
    spelling = tokenizer.decode_bytes([i])
    return b"" if spelling == b"\xff" else spelling  # not UTF-8; llguidance's mark of a special


@lru_cache(maxsize=1)
def _vocabulary(tokenizer: Tokenizer) -> LLTokenizer:
    wrapper = TokenizerWrapper(_Spelling(tokenizer))
    vocabulary = LLTokenizer(wrapper, n_vocab=VOCAB_SIZE)
    wrapper.tokens = ()  # copied: 10 MB less
    return vocabulary
