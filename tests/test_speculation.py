"""Drafts against what follows, how little they cost, and when they stop."""

from __future__ import annotations

import random
from typing import Any, cast

import pytest

from gptoss_mlx.errors import UsageError
from gptoss_mlx.sequence import SpeculationMode
from gptoss_mlx.speculation import Auto, Drafter, Speculation

PERIOD = [5, 6, 7, 8, 9, 5, 1, 2, 3, 4]


def replay(speculation: Speculation, text: list[int], cost: float, limit: int = 8) -> float:
    """Seconds to draw a text where a plain step lasts 1 and each drafted token `cost` more."""
    seconds, done = 0.0, 0
    while done < len(text):
        draft = speculation.draft(limit)
        rest = text[done : done + len(draft)]
        accepted = next((k for k, i in enumerate(rest) if i != draft[k]), len(rest))
        step = 1 + cost * len(draft)
        if draft:
            speculation.record(len(draft), accepted, step, 1.0)
        for i in text[done : done + accepted + 1]:
            speculation.push(i)
        done, seconds = done + accepted + 1, seconds + step
    return seconds


def adversary(length: int) -> list[int]:
    """Every three tokens that have come before are followed by another one than they were."""
    rng, ids, seen = random.Random(0), [0, 1, 2], dict[tuple[int, ...], list[int]]()
    while len(ids) < length:
        used = seen.setdefault(tuple(ids[-3:]), [])
        used.append(rng.choice([i for i in range(40) if i not in used[-1:]]))
        ids.append(used[-1])
        if rng.random() < 0.3:  # say again what came before, but for what follows it
            start = rng.randrange(len(ids) - 3)
            ids += ids[start : start + 3]
    return ids


def test_a_repetition_is_drafted() -> None:
    """After three tokens of a passage, what followed them is the draft."""
    assert Drafter([*range(10, 30), 99, 12, 13, 14]).draft(8) == [15, 16, 17]


@pytest.mark.parametrize("length", [3, 4, 7, 20])
def test_a_draft_is_no_longer_than_its_match(length: int) -> None:
    """The more tokens are alike, the more are risked, up to the limit."""
    prompt = [*range(100, 200), 1, *range(120, 120 + length)]
    for limit in (0, 1, 2, 5, 10, 50):
        wanted = min(limit, length)
        assert Drafter(prompt).draft(limit) == list(range(120 + length, 120 + length + wanted))


@pytest.mark.parametrize("limit", [1, 4, 31])
def test_a_loop_is_drafted_beyond_its_end(limit: int) -> None:
    """Where a text repeats with a period, the draft goes on with it for as long as asked for."""
    drafter = Drafter(PERIOD * 6)
    assert drafter.draft(limit) == (PERIOD * 4)[:limit]
    assert Drafter([7] * 40).draft(limit) == [7] * limit


def test_the_longest_match_wins() -> None:
    """An earlier passage with more in common comes before a later one with less."""
    prompt = [1, 2, 3, 4, 5, 6, 50, 9, 4, 5, 6, 60, 1, 2, 3, 4, 5, 6]
    assert Drafter(prompt).draft(1) == [50]


def test_the_latest_of_equals_wins() -> None:
    """Of two passages with as much in common, the later one is followed."""
    assert Drafter([1, 4, 5, 6, 50, 2, 4, 5, 6, 60, 3, 4, 5, 6]).draft(1) == [60]


@pytest.mark.parametrize("prompt", [[], [1], [1, 1], [1, 2, 3], list(range(100))])
def test_nothing_repeated_nothing_drafted(prompt: list[int]) -> None:
    """Without three tokens that came before there is no draft, nor in an empty sequence."""
    assert Drafter(prompt).draft(8) == []


def test_drawn_ids_count_like_the_prompt() -> None:
    """It makes no difference which ids were prompt and which were drawn."""
    ids = random.Random(1).choices(range(6), k=300)
    drafter = Drafter()
    for k, i in enumerate(ids):
        drafter.push(i)
        assert drafter.draft(5) == Drafter(ids[: k + 1]).draft(5)


def test_drafts_are_what_followed() -> None:
    """Each draft stands in the sequence, after a match at least as long as itself."""
    ids = random.Random(2).choices(range(4), k=400)
    text = "".join(map(str, ids))
    drafted = 0
    for end in range(3, 400):
        draft = "".join(map(str, Drafter(ids[:end]).draft(6)))
        drafted += len(draft)
        if draft:
            context = text[end - max(len(draft), 3) : end]
            assert context + draft in text[:end] + draft
            assert text[:end].find(context) < end - len(context)
    assert drafted > 1000


class Counted(int):
    """An id that counts what it is compared with."""

    comparisons = 0

    def __eq__(self, other: object) -> bool:
        Counted.comparisons += 1
        return int.__eq__(self, cast("int", other))

    __hash__ = int.__hash__


@pytest.mark.parametrize("ids", [[7], PERIOD, [1, 2, 3, *range(100, 200)]])
def test_a_longer_sequence_costs_no_more(ids: list[int]) -> None:
    """A token and a draft take few comparisons, even where each n-gram stands everywhere."""
    drafter = Drafter([Counted(ids[k % len(ids)]) for k in range(20_000)])
    Counted.comparisons = 0
    for k in range(20_000, 20_050):
        assert len(drafter.draft(8)) == 8
        drafter.push(Counted(ids[k % len(ids)]))
    assert 0 < Counted.comparisons < 50 * 300


def test_auto_keeps_what_pays() -> None:
    """In a text that repeats, auto drafts as much as on, and both save most of the time."""
    text = PERIOD * 100
    plain, on, auto = (
        replay(Speculation(mode, []), text, cost=0.2) for mode in ("off", "on", "auto")
    )
    assert plain == len(text)
    assert auto == on < 0.45 * plain


def test_auto_stops_what_does_not() -> None:
    """Where no draft holds, auto loses a handful of steps, however long it goes on."""
    for length in (1000, 20_000):
        text = adversary(length)
        on, auto = (replay(Speculation(mode, []), text, cost=0.5) for mode in ("on", "auto"))
        assert on > 1.1 * len(text)
        assert auto < len(text) + 30


def test_auto_comes_back() -> None:
    """After a long stretch where it did not pay it is tried again, and pays again."""
    text = adversary(2000) + PERIOD * 400
    auto = replay(Speculation("auto", []), text, cost=0.3)
    assert auto < 0.8 * len(text)


def test_rests_double_until_it_pays_again() -> None:
    """Each failed try is followed by a rest twice as long; success shortens the next one."""
    auto, rests = Auto(), list[int]()
    for gained in (-4, -4, -4, 8, -4, -4):
        while not auto.is_resting and gained < 0:
            auto.record(4, 0, 5.0, 1.0)
        if gained > 0:
            auto.record(8, 8, 1.0, 1.0)
            continue
        rests.append(0)
        while auto.is_resting:
            auto.push()
            rests[-1] += 1
    assert rests == [64, 128, 256, 64, 128]


def test_one_accident_stops_nothing() -> None:
    """A step that was slow for another reason costs no more than its tokens one by one."""
    auto = Auto()
    auto.record(3, 0, 1000.0, 1.0)
    assert not auto.is_resting


def test_old_luck_is_forgotten() -> None:
    """However much was gained before, a few losses are enough to stop."""
    auto = Auto()
    for _ in range(1000):
        auto.record(8, 8, 2.0, 1.0)
    for _ in range(9):
        auto.record(2, 0, 2.0, 1.0)
    assert auto.is_resting


def test_off_drafts_nothing_and_on_always() -> None:
    """Whatever is recorded, off stays off and on stays on."""
    cases: list[tuple[SpeculationMode, list[int]]] = [("off", []), ("on", [1, 2])]
    for mode, expected in cases:
        speculation = Speculation(mode, [1, 2, 3] * 5)
        for _ in range(20):
            speculation.record(8, 0, 9.0, 1.0)
        assert speculation.draft(2) == expected


def test_an_unknown_mode_is_refused() -> None:
    """The message has those that there are."""
    with pytest.raises(UsageError, match="one of off, on, auto, not 'fast'"):
        Speculation(cast("Any", "fast"), [])
