"""The scheduler alone: order, turns, and who waits for whose prefix."""

from __future__ import annotations

from collections.abc import Sequence as Ids

import pytest

from gptoss_mlx.scheduler import Scheduler
from gptoss_mlx.sequence import GenerationStats, Request, Sequence, common_prefix

CHUNK = 10


def sequence(*prompt: int, at: float = 0.0) -> Sequence:
    """One that has not begun, submitted at a time."""
    request = Request(prompt or (1,))
    tokens = list(request.prompt)
    return Sequence(request, 0, 5, tokens, GenerationStats(len(tokens)), submitted=at)


def in_order(n: int) -> list[Sequence]:
    """Sequences with nothing in common, submitted one after the other."""
    return [sequence(*range(100 * k, 100 * k + 50), at=k) for k in range(1, n + 1)]


def scheduler_of(sequences: Ids[Sequence], max_running: int = 8) -> Scheduler:
    """They have been added, and as many admitted as may run."""
    scheduler = Scheduler(max_running)
    for s in sequences:
        scheduler.add(s)
    scheduler.admit()
    return scheduler


def nothing_cached(_: Sequence) -> int:
    """No prefix is there."""
    return 0


def prefill(scheduler: Scheduler) -> Sequence | None:
    """Let the next one compute a chunk."""
    turn = scheduler.next_prefill(nothing_cached, CHUNK)
    if turn is not None:
        turn.computed += CHUNK
    return turn


def test_first_come_first_served() -> None:
    """As many are admitted as may run, in their order; the next when one has ended."""
    a, b, c, d = in_order(4)
    scheduler = scheduler_of([a, b, c, d], max_running=2)
    assert (list(scheduler.prefilling), list(scheduler.waiting)) == ([a, b], [c, d])
    scheduler.start(a)
    scheduler.admit()
    assert (scheduler.running, list(scheduler.prefilling)) == ([a], [b])
    scheduler.end(a)
    scheduler.admit()
    assert (list(scheduler.prefilling), list(scheduler.waiting)) == ([b, c], [d])


def test_prefills_take_turns() -> None:
    """Each gets a chunk before the first gets another."""
    a, b, c = in_order(3)
    scheduler = scheduler_of([a, b, c])
    assert [prefill(scheduler) for _ in range(7)] == [a, b, c, a, b, c, a]


def test_a_newcomer_waits_for_one_turn_of_the_others() -> None:
    """However long the prompts are that are being prefilled."""
    *long, short = in_order(4)
    scheduler = scheduler_of(long)
    for _ in range(5):
        prefill(scheduler)
    scheduler.add(short)
    scheduler.admit()
    turns = [prefill(scheduler) for _ in range(4)]
    assert short in turns
    assert len(set(turns)) == 4


def test_nobody_prefills_when_nobody_can() -> None:
    """Neither an empty scheduler nor one whose sequences all decode has a turn to give."""
    scheduler = scheduler_of([])
    assert prefill(scheduler) is None
    [a] = in_order(1)
    scheduler.add(a)
    scheduler.admit()
    scheduler.start(a)
    assert prefill(scheduler) is None


def test_who_has_no_room_is_not_overtaken() -> None:
    """The oldest that has not begun is asked for again; those that have begun go on."""
    begun, refused, late = in_order(3)
    scheduler = scheduler_of([begun])
    prefill(scheduler)
    for s in (refused, late):
        scheduler.add(s)
    scheduler.admit()
    turns = [scheduler.next_prefill(nothing_cached, CHUNK) for _ in range(6)]
    assert (turns.count(begun), turns.count(refused), turns.count(late)) == (3, 3, 0)
    refused.computed = 1
    assert late in [scheduler.next_prefill(nothing_cached, CHUNK) for _ in range(3)]


@pytest.mark.parametrize(
    ("common", "cached", "waits"), [(40, 0, True), (40, 31, False), (9, 0, False), (10, 0, True)]
)
def test_a_prompt_waits_for_a_prefix(common: int, cached: int, waits: bool) -> None:
    """One that begins like one being prefilled waits, if a chunk or more can be saved."""
    leader = sequence(*range(100), at=1)
    follower = sequence(*range(common), *[999] * 20, at=2)
    scheduler = scheduler_of([leader, follower])
    leader.computed = 1
    turns = [
        scheduler.next_prefill(lambda s: cached if s is follower else 0, CHUNK) for _ in range(4)
    ]
    assert (follower not in turns) == waits
    assert leader in turns


def test_a_prompt_waits_no_longer_than_the_prefix() -> None:
    """When the leader is past what both share, there is nothing more to wait for."""
    leader, follower = sequence(*range(100), at=1), sequence(*range(40), 999, at=2)
    scheduler = scheduler_of([leader, follower])
    turns: list[Sequence | None] = []
    while follower not in turns and len(turns) < 10:
        turns.append(prefill(scheduler))
    assert turns[-1] is follower
    assert leader.computed == common_prefix(leader.tokens, follower.tokens)


def test_of_twins_one_leads() -> None:
    """Equal prompts that come together do not wait for each other."""
    twins = [sequence(*range(30), at=at) for at in range(3)]
    scheduler = scheduler_of(twins)
    assert prefill(scheduler) is twins[0]
    assert prefill(scheduler) is twins[0]


def test_a_leader_that_ends_is_not_waited_for() -> None:
    """When it is cancelled, the next one computes the prefix."""
    leader, follower = (sequence(*range(30), at=at) for at in (1, 2))
    scheduler = scheduler_of([leader, follower])
    prefill(scheduler)
    scheduler.end(leader)
    assert prefill(scheduler) is follower


def test_requeued_ones_are_the_first_again() -> None:
    """In their order, before all that wait, and from the beginning."""
    a, b, c, d = in_order(4)
    scheduler = scheduler_of([a, b, c, d], max_running=3)
    for s in (a, b):
        s.computed = 50
        scheduler.start(s)
    scheduler.requeue(s for s in (a, b))
    assert list(scheduler.waiting) == [a, b, d]
    assert [s.computed for s in (a, b)] == [0, 0]
    assert (list(scheduler.prefilling), scheduler.running) == ([c], [])
    scheduler.admit()
    assert list(scheduler.prefilling) == [c, a, b]


@pytest.mark.parametrize("place", ["waiting", "prefilling", "running"])
def test_an_end_anywhere(place: str) -> None:
    """A sequence can end wherever it is; then it is nowhere, and the others are where they were."""
    a, b, c = in_order(3)
    scheduler = scheduler_of([a, b, c], max_running=2)
    scheduler.start(a)
    ended = {"waiting": c, "prefilling": b, "running": a}[place]
    scheduler.end(ended)
    assert scheduler.all == [s for s in (a, b, c) if s is not ended]
    scheduler.end(ended)
    assert len(scheduler.all) == 2
