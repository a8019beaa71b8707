"""Drafts for speculative decoding, without a second model: what followed when it was said before.

Prompt lookup decoding (A. Saxena, 2023, https://github.com/apoorvumang/prompt-lookup-decoding): the
last tokens are looked up among the earlier ones of prompt and completion, and what followed them
there is the draft. It knows ids and seconds only: how a draft is checked is the engine's matter.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from typing import get_args

from gptoss_mlx.errors import UsageError
from gptoss_mlx.sequence import SpeculationMode

__all__ = ["Auto", "Drafter", "Speculation"]

# Replayed over code, edits of code, JSON and prose: with 2, prose and new code lose where a drafted
# token costs a third of a step, as with many experts; with 3 they do not, and edits gain as much.
_NGRAM = 3
_CANDIDATES = 8  # earlier places of an n-gram that are compared, the latest first
_LONGEST_MATCH = 32  # tokens beyond which one match is as good as another

# In plain steps; see `Auto`.
_START = 4.0
_MOST = 8.0
_RETRY = 1.0
_FIRST_REST = 64  # tokens


class Drafter:
    """The tokens of one sequence, so far, and where each n-gram of them stands.

    Places of the same n-gram are chained, as in deflate, so that neither a token nor a draft costs
    more in a longer sequence. A draft is no longer than the match it relies on: few tokens are
    risked on three that are alike, and many on a long quotation.
    """

    def __init__(self, prompt: Iterable[int] = ()) -> None:
        self._ids: list[int] = []
        self._latest: dict[tuple[int, ...], int] = {}  # n-gram -> where it last ended
        # at each end of an n-gram: where the same one ended before, or 0
        self._earlier = array("q")
        for i in prompt:
            self.push(i)

    def push(self, i: int) -> None:
        """The sequence has grown by one id, of the prompt or drawn."""
        self._ids.append(i)
        if len(self._ids) < _NGRAM:
            self._earlier.append(0)
            return
        gram = tuple(self._ids[-_NGRAM:])
        self._earlier.append(self._latest.get(gram, 0))
        self._latest[gram] = len(self._ids)

    def draft(self, limit: int) -> list[int]:
        """At most `limit` ids that may come next; none if nothing like it came before."""
        end, length = self._longest_match()
        found: list[int] = []
        for k in range(end, end + min(limit, length)):  # may run into the draft itself: a loop
            found.append(self._ids[k] if k < len(self._ids) else found[k - len(self._ids)])
        return found

    def _longest_match(self) -> tuple[int, int]:
        """(its end, its length) of the longest of the latest places; the latest if equally long."""
        best, longest = 0, 0
        end = self._earlier[-1] if self._earlier else 0
        for _ in range(_CANDIDATES):
            if end == 0 or longest >= _LONGEST_MATCH:
                break
            length = self._match_length(end)
            if length > longest:
                best, longest = end, length
            end = self._earlier[end - 1]
        return best, longest

    def _match_length(self, end: int) -> int:
        """How many tokens before `end` are the last ones of the sequence."""
        ids, length = self._ids, 0
        while length < min(end, _LONGEST_MATCH) and ids[end - 1 - length] == ids[-1 - length]:
            length += 1
        return length


class Auto:
    """Whether drafting pays for this request: an account, counted in plain steps.

    A speculative step pays in one for each token that it gave, and takes out what it lasted. The
    account begins with 4 and holds at most 8, so that old luck does not pay for new losses. When it
    is overdrawn drafting rests for 64 tokens, and tries again with 1; each rest is twice as long as
    the last, until the account is back where it began.
    """

    def __init__(self) -> None:
        self._account = _START
        self._rest = 0  # tokens left of it
        self._next_rest = _FIRST_REST

    @property
    def is_resting(self) -> bool:
        """Whether steps should be plain now."""
        return self._rest > 0

    def push(self) -> None:
        """A token was drawn."""
        self._rest = max(self._rest - 1, 0)

    def record(self, drafted: int, accepted: int, seconds: float, plain_seconds: float) -> None:
        """A speculative step is done.

        Args:
            drafted: how many tokens it checked.
            accepted: how many of them held; the step gave one more.
            seconds: what it lasted.
            plain_seconds: what a step without a draft lasts, by the latest measurements.
        """
        gained = 1 + accepted - seconds / plain_seconds
        # Checking costs no more than drawing one by one: what exceeds it is an accident.
        self._account = min(self._account + max(gained, -drafted), _MOST)
        if self._account >= _START:
            self._next_rest = _FIRST_REST
        if self._account < 0:
            self._account = _RETRY
            self._rest, self._next_rest = self._next_rest, 2 * self._next_rest


class Speculation:
    """Drafts for one request, as its mode has it: never, always, or while they pay.

    Raises:
        UsageError: there is no such mode.
    """

    def __init__(self, mode: SpeculationMode, prompt: Iterable[int]) -> None:
        if mode not in (modes := get_args(SpeculationMode)):
            raise UsageError(f"speculation is one of {', '.join(modes)}, not {mode!r}")
        self._drafter = None if mode == "off" else Drafter(prompt)
        self._auto = Auto() if mode == "auto" else None

    def push(self, i: int) -> None:
        """An id was drawn, in whichever kind of step."""
        if self._drafter is not None:
            self._drafter.push(i)
        if self._auto is not None:
            self._auto.push()

    @property
    def may_draft(self) -> bool:
        """Whether there may be a draft now; if not, steps are plain."""
        return self._drafter is not None and not (self._auto is not None and self._auto.is_resting)

    def draft(self, limit: int) -> list[int]:
        """At most `limit` ids that may come next; none means a plain step."""
        return self._drafter.draft(limit) if self._drafter is not None and self.may_draft else []

    def record(self, drafted: int, accepted: int, seconds: float, plain_seconds: float) -> None:
        """A step with a draft is done; see `Auto.record`."""
        if self._auto is not None:
            self._auto.record(drafted, accepted, seconds, plain_seconds)
