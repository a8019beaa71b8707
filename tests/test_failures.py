"""What goes wrong is one request's matter: failures, cancels, deadlines, no room, a dead thread."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, cast

import pytest
from faults import NOT_A_NUMBER, POISON, Faulty, Killed, Only, live_objects, settled
from helpers import random_model

from gptoss_mlx.cache import Cache
from gptoss_mlx.config import SamplingParams
from gptoss_mlx.engine import Engine
from gptoss_mlx.errors import BusyError, CacheFullError, DeadlineError, EngineError, UsageError
from gptoss_mlx.generation import Generation
from gptoss_mlx.sequence import GenerationStats, Request, Sequence

SEGMENT = 256 * 512  # bytes of as many positions as the cache grows by, of TINY in float32
PROMPT = tuple((5 * i * i + 1) % 250 for i in range(40))
GREEDY = SamplingParams(temperature=0, max_tokens=12, logit_bias=((POISON, -100), (252, -100)))
LONG = replace(GREEDY, max_tokens=1500)


@pytest.fixture
def model() -> Faulty:
    """A small random model that fails when it is told to."""
    return Faulty(random_model(), seed=0)


@pytest.fixture
def engine(model: Faulty) -> Iterator[Engine]:
    """With room for everything."""
    with Engine(model, prefill_chunk=16) as engine:
        yield engine


def alone(*prompt: int) -> list[int]:
    """The greedy answer of an engine that has done nothing else."""
    with Engine(random_model()) as engine:
        return list(engine.generate(prompt or PROMPT, GREEDY))


def started(generation: Generation) -> Iterator[int]:
    """Its ids, of which the first has been drawn."""
    ids = iter(generation)
    next(ids)
    return ids


def threads_of_engines() -> list[str]:
    """The names of those that live."""
    names = [thread.name for thread in threading.enumerate()]
    return [name for name in names if name.startswith("gptoss-mlx")]


class Broken:
    """A constraint that raises from its third mask on."""

    def __init__(self) -> None:
        self._asked = 0

    def mask(self) -> None:
        """Every id, or an error."""
        self._asked += 1
        if self._asked >= 3:
            raise ArithmeticError("no mask")

    def forced(self) -> list[int]:
        """Nothing: it may be anything that the mask allows."""
        return []

    def advance(self, token: int) -> None:
        """Nothing changes."""


class Strict(Broken):
    """A constraint that raises when it is told of an id."""

    def mask(self) -> None:
        """Every id."""

    def forced(self) -> list[int]:
        """Nothing: it may be anything that the mask allows."""
        return []

    def advance(self, token: int) -> None:
        """An error."""
        raise ArithmeticError(f"not {token}")


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (Request((*PROMPT, POISON), GREEDY), "poison"),
        (Request((*PROMPT, NOT_A_NUMBER), GREEDY), "not numbers"),
        (Request(PROMPT, GREEDY, constraint=Only([7, 7, POISON], 257, is_script=True)), "poison"),
        (Request(PROMPT, GREEDY, constraint=Only([7, 252], 257, is_script=True)), "not numbers"),
        (Request(PROMPT, GREEDY, constraint=Broken()), "no mask"),
        (Request(PROMPT, GREEDY, constraint=Strict()), "not [0-9]+"),
    ],
    ids=["prefill", "NaN prefill", "decode", "NaN decode", "mask", "advance"],
)
def test_a_request_fails_alone(engine: Engine, bad: Request, message: str) -> None:
    """Its batch mates give what they give alone, whatever goes wrong with it."""
    mates = [engine.generate([n, *PROMPT], GREEDY) for n in range(3)]
    failing = engine.submit(bad)
    mates.append(engine.generate(PROMPT, GREEDY))
    with pytest.raises(EngineError, match=message):
        list(failing)
    assert [list(mate) for mate in mates] == [*(alone(n, *PROMPT) for n in range(3)), alone()]
    assert failing.finish_reason == "error"
    assert engine.health.is_green


def test_an_innocent_request_survives_many_failures(engine: Engine) -> None:
    """However often a batch fails because of others, who is not the reason is not given up."""
    request = Request(PROMPT, replace(GREEDY, max_tokens=200))
    with Engine(random_model()) as other:
        expected = list(other.submit(request))
    ids = started(survivor := engine.submit(request))
    for n in range(5):
        script = Only([n, n, POISON], 257, is_script=True)
        with pytest.raises(EngineError, match="poison"):
            list(engine.submit(Request((n, 1, 2), GREEDY, constraint=script)))
    assert survivor.finish_reason is None, "it ended too early for this test"
    assert [expected[0], *ids] == expected


def test_suspects_do_not_fail_others(engine: Engine) -> None:
    """Several that always fail, in one batch with several that never do."""
    poison = [Only([n, POISON], 257, is_script=True) for n in range(3)]
    bad = [engine.submit(Request((9, n), GREEDY, constraint=c)) for n, c in enumerate(poison)]
    good = [engine.generate([n, *PROMPT], GREEDY) for n in range(3)]
    assert [list(g) for g in good] == [alone(n, *PROMPT) for n in range(3)]
    for generation in bad:
        with pytest.raises(EngineError, match="poison"):
            list(generation)


def test_a_draft_keeps_to_the_constraint(engine: Engine) -> None:
    """Drafts come from the prompt; what is drawn must be allowed nevertheless."""
    for mode in ("off", "on"):
        script = Only([6, 7, 8, 9], 257, is_script=True)
        request = Request((6, 7, 8, 9) * 8, GREEDY, constraint=script, speculation=mode)
        assert list(engine.submit(request)) == [6, 7, 8, 9] * 3
        assert script.advanced == 12


def test_an_unknown_mode_leaves_no_lease(engine: Engine) -> None:
    """A request that cannot begin holds no memory."""
    with pytest.raises(UsageError, match="speculation"):
        list(engine.submit(Request(PROMPT, GREEDY, speculation="perhaps")))  # pyright: ignore
    assert settled(lambda: engine.health.running == 0)
    engine.prefix.clear()
    assert engine.prefix.nbytes == 0
    assert live_objects()["Lease"] == 0


def test_a_failed_prefill_is_not_reused(engine: Engine, model: Faulty) -> None:
    """Whatever a step that fails half-way has left in the cache, the next request is right."""
    model.rate = 0.5
    for _ in range(8):
        try:
            list(engine.generate(PROMPT, GREEDY))
        except EngineError:
            assert engine.health.is_green
    assert model.counts["half-way"]
    model.rate = 0
    assert list(engine.generate(PROMPT, GREEDY)) == alone()


def test_a_full_engine_is_busy(model: Faulty) -> None:
    """Beyond the limit a request is refused; when another has ended there is a place again."""
    with Engine(model, max_running=1, max_waiting=2) as engine:
        taken = [engine.generate([n], LONG) for n in range(3)]
        with pytest.raises(BusyError, match="3 requests run or wait"):
            engine.generate([4], GREEDY)
        taken[1].close()
        assert settled(lambda: engine.health.running + engine.health.waiting == 2)
        extra = engine.generate(PROMPT, GREEDY)
        for generation in taken:
            generation.close()
        assert list(extra) == alone()


def test_close_ends_everything(model: Faulty) -> None:
    """Whoever waits for a token is told; nobody can submit any more, and the thread is gone."""
    before = threading.active_count()
    engine = Engine(model, max_running=2)
    generations = [engine.generate([n], LONG) for n in range(5)]
    readers = [started(g) for g in generations[:2]]
    engine.close()
    for ids in [*readers, *(iter(g) for g in generations[2:])]:
        with pytest.raises(EngineError, match="closed"):
            list(ids)
    with pytest.raises(EngineError, match="closed"):
        engine.generate(PROMPT)
    engine.close()
    assert threading.active_count() == before


def test_a_dead_thread_is_replaced(engine: Engine, model: Faulty) -> None:
    """What ran is told, health is red until a step succeeds, and the next request is served."""
    ids = started(engine.generate(PROMPT, LONG))
    model.deaths = 1
    with pytest.raises(EngineError, match="thread died: Killed"):
        list(ids)
    assert settled(lambda: not engine.health.is_green)
    assert "Killed" in str(engine.health.problem)
    model.deaths = 0
    assert list(engine.generate(PROMPT, GREEDY)) == alone()
    assert settled(lambda: engine.health.is_green)


def test_a_thread_that_always_dies_is_given_up(engine: Engine, model: Faulty) -> None:
    """After three deaths in a row a submit says so, and nobody waits for a thread there is not."""
    model.deaths, before = 1, len(threads_of_engines())
    for _ in range(3):
        generation = engine.generate(PROMPT, GREEDY)
        with pytest.raises(EngineError, match="died"):
            list(generation)
    assert settled(lambda: len(threads_of_engines()) == before)
    with pytest.raises(EngineError, match="dies again and again"):
        engine.generate(PROMPT, GREEDY)
    assert not engine.health.is_green


def test_requests_that_come_while_the_last_thread_dies(model: Faulty) -> None:
    """They are in nobody's hands yet, and get an error instead of silence."""
    with Engine(model) as engine:
        late: list[Generation] = []

        def die(*_: object) -> None:
            late.append(engine.generate(PROMPT, GREEDY))
            raise Killed

        model.hidden_states = die  # pyright: ignore[reportAttributeAccessIssue]
        first = engine.generate(PROMPT, GREEDY)
        with pytest.raises(EngineError, match="died"):
            list(first)
        assert settled(lambda: len(late) == 3)
        for generation in late:
            with pytest.raises(EngineError, match="died"):
                list(generation)


def test_a_sequence_beyond_the_cache_fails_at_once(model: Faulty) -> None:
    """It does not wait for others, nor they for it, and the message says what to do."""
    with Engine(model, cache_bytes=2 * SEGMENT + SEGMENT // 2) as engine:
        ids = started(mate := engine.generate(PROMPT, replace(GREEDY, max_tokens=150)))
        with pytest.raises(CacheFullError, match=r"shorten it, or give the cache more memory"):
            list(engine.generate([*PROMPT] * 20, GREEDY))
        assert mate.finish_reason is None
        assert len(list(ids)) == 149


def test_one_that_outgrows_the_cache_fails(model: Faulty) -> None:
    """Alone, an answer that needs more than there is ends in an error after what it gave."""
    with Engine(model, cache_bytes=SEGMENT + SEGMENT // 2) as engine:
        ids: list[int] = []
        with pytest.raises(CacheFullError, match="more memory"):
            ids.extend(engine.generate(PROMPT, LONG))
        assert list(engine.generate(PROMPT, GREEDY)) == alone()


def test_the_youngest_waits_when_there_is_no_room(model: Faulty) -> None:
    """Two answers outgrow the cache together: one after the other, both come out right."""
    params = replace(GREEDY, max_tokens=240)
    with Engine(random_model()) as other:
        expected = [list(other.generate([n, *PROMPT], params)) for n in (1, 2)]
    with Engine(model, cache_bytes=3 * SEGMENT + SEGMENT // 2) as engine:
        pair = [engine.generate([n, *PROMPT], params) for n in (1, 2)]
        assert [list(g) for g in pair] == expected
        assert engine.prefix.stats.leases > 2, "neither was preempted"


def test_deadlines(model: Faulty) -> None:
    """A request ends in time, whether it waits or decodes; what it gave before is kept."""
    with Engine(model, max_running=1) as engine:
        decoding = engine.submit(Request(PROMPT, LONG, timeout=0.7))
        waiting = engine.submit(Request(PROMPT, LONG, timeout=0.1))
        with pytest.raises(DeadlineError, match=r"0\.1 s"):
            list(waiting)
        assert waiting.stats.completion_tokens == 0
        ids: list[int] = []
        with pytest.raises(DeadlineError, match=r"0\.7 s"):
            ids.extend(decoding)
        assert ids[:5] == alone()[:5]


def test_a_cancelled_prefill_is_reused(engine: Engine, model: Faulty) -> None:
    """What was computed of a prompt before it was cancelled is not computed again."""
    prompt = [i % 100 for i in range(600)]
    boundaries = frozenset([0])  # every 100 tokens
    request = Request(tuple(prompt), GREEDY, boundaries=boundaries)
    generation = engine.submit(request)
    assert settled(lambda: model.counts["computed"] >= 150)
    generation.close()
    assert settled(lambda: engine.health.running == 0)
    assert model.counts["computed"] < 600
    again = engine.submit(request)
    list(again)
    assert again.stats.cached_tokens in (100, 200, 300, 400, 500)


def test_a_cancel_before_the_first_token(engine: Engine) -> None:
    """It ends at once and without a token, and its generation can be read as often as one likes."""
    generation = engine.generate(PROMPT * 30, LONG)
    generation.close()
    assert list(generation) == []
    assert list(generation) == []
    assert generation.finish_reason == "cancelled"


def test_a_short_prompt_does_not_wait_for_long_ones(engine: Engine, model: Faulty) -> None:
    """Its turn comes after one chunk of each of those that are being prefilled."""
    long = [engine.generate([n] * 1500, GREEDY) for n in range(3)]
    assert settled(lambda: model.counts["computed"] > 100)
    before = model.counts["computed"]
    started(engine.generate([200, 201, 202], GREEDY))
    assert model.counts["computed"] - before < 2000
    for generation in long:
        assert generation.stats.completion_tokens == 0
        generation.close()


def test_a_shared_prefix_is_computed_once(engine: Engine, model: Faulty) -> None:
    """Prompts that come together and begin alike: one computes what all of them need."""
    prefix = [*range(10, 210)] * 3
    requests = [
        Request((*prefix, 3, n), replace(GREEDY, max_tokens=1), boundaries=frozenset([3]))
        for n in range(4)
    ]
    generations = [engine.submit(request) for request in requests]
    assert [len(list(g)) for g in generations] == [1] * 4
    assert [g.stats.cached_tokens for g in generations] == [0, 601, 601, 601]
    assert model.counts["computed"] < 700


def test_memory_comes_back_without_a_collector(engine: Engine) -> None:
    """No cycle keeps the cache of a sequence that has ended, however it did."""
    list(engine.generate(PROMPT, GREEDY))
    engine.prefix.clear()
    live_objects()

    def caches() -> int:
        return sum(type(o) is Cache for o in gc.get_objects())  # isinstance wakes up strangers

    before = caches()  # of other tests
    gc.disable()
    try:
        list(engine.generate(PROMPT, GREEDY))
        next(iter(engine.generate(PROMPT * 2, GREEDY)))
        with pytest.raises(EngineError):
            list(engine.generate([*PROMPT, POISON], GREEDY))
        assert settled(lambda: engine.health.running == 0)
        engine.prefix.clear()
        assert settled(lambda: caches() == before)
    finally:
        gc.enable()


def test_a_consumer_that_fails_harms_nobody(engine: Engine) -> None:
    """One that raises while it is shown the prefill: its request is cancelled, others go on."""

    def on_prefill(*_: int) -> None:
        raise ArithmeticError("listener")

    other = engine.generate([1, *PROMPT], GREEDY)
    with pytest.raises(ArithmeticError):
        list(engine.submit(Request(PROMPT, LONG), on_prefill))
    assert list(other) == alone(1, *PROMPT)
    assert settled(lambda: engine.health.running == 0)


@pytest.mark.parametrize(
    "bad",
    [
        Request(PROMPT, GREEDY, timeout=0),
        Request(PROMPT, GREEDY, timeout=-1),
        Request(PROMPT, GREEDY, timeout=float("nan")),
        Request(PROMPT, GREEDY, timeout=cast("Any", "1")),
        Request(cast("Any", (1.5,)), GREEDY),
        Request(cast("Any", ("1",)), GREEDY),
    ],
)
def test_requests_that_are_none(engine: Engine, bad: Request) -> None:
    """They are refused at once."""
    with pytest.raises(UsageError):
        engine.submit(bad)


def test_a_log_holds_no_prompt() -> None:
    """What is printed of a request and a sequence does not say what somebody asked."""
    request = Request((123456, 7), GREEDY)
    sequence = Sequence(request, 1, 1, [123456], GenerationStats(1))
    assert "123456" not in f"{request!r} {sequence!r}"


def test_a_stop_token_ends_a_constrained_request(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    """Drawn by chance and not forced, alone in its batch: no step fails."""
    for n in range(5):
        constraint = Only([3, 4, 5], 257)
        params = SamplingParams(seed=n, max_tokens=40)
        ids = list(engine.submit(Request(PROMPT, params, stop={5}, constraint=constraint)))
        assert ids[-1] == 5 or len(ids) == 40
    assert caplog.text == ""


class Forcing(Broken):
    """A constraint that forces an id that no vocabulary has."""

    def mask(self) -> None:
        """Every id."""

    def forced(self) -> list[int]:
        """One beyond."""
        return [10**9]


def test_forced_ids_that_there_are_not(engine: Engine) -> None:
    """They end the request, and the model never sees them."""
    with pytest.raises(EngineError, match="that there are not"):
        list(engine.submit(Request(PROMPT, GREEDY, constraint=Forcing())))
