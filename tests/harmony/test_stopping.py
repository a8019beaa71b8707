"""Stop strings against the naive definition, whatever the pieces."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from gptoss_mlx.errors import UsageError
from gptoss_mlx.harmony import Delta, Message, StopFilter
from gptoss_mlx.tokenizer import Tokenizer

from .completions import parse_events


def answer(*pieces: str) -> list[Delta | Message]:
    """The events of a final message that came in these pieces."""
    message = Message("assistant", "".join(pieces), "final", ids=(1, 2, 3))
    return [*(Delta("final", None, piece) for piece in pieces), message]


def filtered(
    stops: Sequence[str], events: Sequence[Delta | Message]
) -> tuple[str, list[Message], str | None]:
    """(text of all deltas, messages, the stop found) when events come one by one."""
    stopping = StopFilter(stops)
    found = [remaining for event in events for remaining in stopping.push([event])]
    messages = [event for event in found if isinstance(event, Message)]
    return "".join(e.text for e in found if isinstance(e, Delta)), messages, stopping.stopped


def naive(stops: Sequence[str], text: str) -> tuple[str, str | None]:
    """(text before the first stop, that stop) by looking at all of the text."""
    found = [(text.find(stop), len(stop), stop) for stop in stops if stop in text]
    if not found:
        return text, None
    start, _, stop = min(found)
    return text[:start], stop


@pytest.mark.parametrize(
    ("stops", "pieces", "text", "stop"),
    [
        (["END"], ["Hello", " END", " more"], "Hello ", "END"),
        (["END"], ["a", "E", "N", "D", "b"], "a", "END"),
        (["END"], ["E", "N", "x", "EN"], "ENxEN", None),
        (["END"], ["ENDEND"], "", "END"),
        (["aab"], ["a", "a", "a", "b"], "a", "aab"),
        (["abcd", "bc"], ["a", "bc", "d"], "", "abcd"),
        (["abcd", "bc"], ["a", "bc", "x"], "a", "bc"),
        (["abcd", "bc"], ["a", "bc"], "a", "bc"),
        (["abc", "ab"], ["abc"], "", "ab"),
        (["\n\n"], ["one\n", "\ntwo"], "one", "\n\n"),
        (["é"], ["caf", "é"], "caf", "é"),
        ([], ["as it", " is"], "as it is", None),
    ],
)
def test_the_text_before_the_first_stop(
    stops: list[str], pieces: list[str], text: str, stop: str | None
) -> None:
    """Deltas and message end where the stop begins, also when it is split over pieces."""
    shown, (message,), stopped = filtered(stops, answer(*pieces))
    assert (shown, message.content, stopped) == (text, text, stop)
    assert message.ids == (None if stop else (1, 2, 3))


def test_only_what_is_undecided_is_held_back() -> None:
    """Text is given as soon as no stop can begin in it, and a stop is told once it is there."""
    stopping = StopFilter(["END"])
    events = answer("one E", "N", "x two", " EN", "D", "!")
    found = [[e.text for e in stopping.push([delta]) if isinstance(e, Delta)] for delta in events]
    assert found == [["one "], [], ["ENx two"], [" "], [], [], []]
    stopping = StopFilter(["END"])
    stopping.push(events[:4])
    assert stopping.stopped is None
    stopping.push(events[4:5])
    assert stopping.stopped == "END"


def test_a_stop_that_begins_another_is_told_at_once() -> None:
    """Whether the longer one would follow does not matter."""
    stopping = StopFilter(["ab", "abc"])
    stopping.push(answer("xab")[:1])
    assert stopping.stopped == "ab"


def test_nothing_follows_the_stop() -> None:
    """The message that was cut is the last event."""
    events = [*answer("a END b"), Delta("analysis", None, "x"), *answer("c")]
    shown, messages, stopped = filtered(["END"], events)
    assert (shown, [m.content for m in messages], stopped) == ("a ", ["a "], "END")


def test_each_answer_is_a_text_of_its_own() -> None:
    """A stop does not reach from one message into the next, and what was held is given."""
    shown, messages, stopped = filtered(["ab"], [*answer("x a"), *answer("b", "ab")])
    assert (shown, [m.content for m in messages], stopped) == ("x ab", ["x a", "b"], "ab")


def test_an_empty_stop_is_refused() -> None:
    """It would stand at the beginning of every text."""
    with pytest.raises(UsageError, match="must not be empty"):
        StopFilter(["a", ""])


@pytest.mark.parametrize(
    "other",
    [
        "<|channel|>analysis<|message|>STOP<|end|>",
        "<|channel|>commentary<|message|>STOP<|end|>",
        "<|channel|>commentary to=functions.f<|message|>STOP<|call|>",
        "<|channel|>final to=functions.f<|message|>STOP<|call|>",
    ],
)
def test_it_fires_in_the_answer_only(tokenizer: Tokenizer, other: str) -> None:
    """Reasoning, preambles and calls pass as they are; the answer after them is cut."""
    text = other + "<|start|>assistant<|channel|>final<|message|>Yes. STOP and more<|return|>"
    events = parse_events(tokenizer.encode_with_special(text), tokenizer)
    shown, messages, stopped = filtered(["STOP"], events)
    assert (shown, stopped) == ("STOPYes. ", "STOP")
    assert [m.content for m in messages] == ["STOP", "Yes. "]
    assert (messages[0].ids is None, messages[1].ids) == (False, None)


def test_random_texts_in_random_pieces() -> None:
    """The naive definition on the whole text, for stops that overlap and contain each other."""
    rng = random.Random(7)
    fired = 0
    for _ in range(8_000):
        stops = ["".join(rng.choices("ab ", k=rng.randint(1, 5))) for _ in range(rng.randint(1, 4))]
        text = "".join(rng.choices("ab c", k=rng.randint(1, 25)))
        cuts = sorted(rng.sample(range(1, len(text)), k=rng.randint(0, len(text) - 1)))
        pieces = [text[i:j] for i, j in zip([0, *cuts], [*cuts, len(text)], strict=True)]
        shown, (message,), stopped = filtered(stops, answer(*pieces))
        assert (shown, stopped) == naive(stops, text), (stops, pieces)
        assert message.content == shown
        fired += stopped is not None
    assert 1000 < fired < 7000
