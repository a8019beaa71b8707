"""Many requests at once against an engine that fails at random: nothing wrong, lost or left over.

Run by `make soak`; tests/test_soak.py runs a short one. Prompts share prefixes, byte budgets are
tiny, consumers cancel and forget, and the model raises, half-way through its caches too, returns
NaN or kills the thread. What each request gave is compared with the plain model, position by
position. It does not know how long things may take: the threads decide what meets what.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from unittest.mock import patch

import mlx.core as mx
import numpy as np
from faults import NOT_A_NUMBER, POISON, Faulty, Only, live_objects, settled
from helpers import random_model

from gptoss_mlx import engine as engine_module
from gptoss_mlx.config import SamplingParams
from gptoss_mlx.engine import Engine
from gptoss_mlx.errors import BusyError, CacheFullError, DeadlineError
from gptoss_mlx.generation import Generation
from gptoss_mlx.model import Model
from gptoss_mlx.prefix import PrefixCache
from gptoss_mlx.runner import Runner
from gptoss_mlx.sampler import Row, Sampler
from gptoss_mlx.scheduler import Scheduler
from gptoss_mlx.sequence import Request, SpeculationMode, Token
from gptoss_mlx.sequence import Sequence as Running

__all__ = ["check_nothing_left", "soak"]

KIB = 1 << 10
BUDGETS = (260 * KIB, 450 * KIB, 900 * KIB, 4096 * KIB)  # a segment of 256 positions takes 128
CONSUMERS = 8
BOUNDARY = 3  # the id that begins a message
CLOSE = 1e-4  # logits that differ by less may change places in another batch


@dataclass(frozen=True)
class Plan:
    """A request, and what its consumer does with it.

    allowed: ids that its constraint leaves, by turns if it is a script. cancel_after: tokens; then
    it closes the generation, or just forgets it.
    """

    request: Request
    allowed: tuple[int, ...] = ()
    is_script: bool = False
    cancel_after: int | None = None
    is_forgotten: bool = False

    def constraint(self, vocab_size: int) -> Only | None:
        """A new one; they have a state."""
        if not self.allowed:
            return None
        return Only(self.allowed, vocab_size, is_script=self.is_script)


@dataclass
class Outcome:
    """What became of a plan."""

    plan: Plan
    ids: list[int]
    reason: str | None
    error: Exception | None = None

    @property
    def kind(self) -> str:
        """One word for it."""
        return type(self.error).__name__ if self.error else str(self.reason)


@dataclass
class Report:
    """What a soak has seen."""

    ends: Counter[str] = field(default_factory=Counter[str])
    counts: Counter[str] = field(default_factory=Counter[str])
    left: Counter[str] = field(default_factory=Counter[str])  # live objects beyond the start's
    bytes_left: int = 0


def tree_of_prompts(rng: random.Random, vocab_size: int) -> list[list[int]]:
    """Prompts that begin alike: each adds a message to an earlier one."""
    prompts: list[list[int]] = [[]]
    for _ in range(40):
        length = rng.choice([1, 5, 17, 40])
        message = [BOUNDARY, *(rng.randrange(4, vocab_size - 7) for _ in range(length))]
        prompts.append([*rng.choice(prompts[-15:])[:240], *message])
    return [p for p in prompts if p]


def random_plan(rng: random.Random, prompts: Sequence[Sequence[int]], vocab_size: int) -> Plan:
    """One of the requests that a soak is made of."""
    prompt = list(rng.choice(prompts))
    if rng.random() < 0.12:  # its answer makes the cache grow
        prompt += [rng.randrange(4, 200) for _ in range(rng.randint(235, 255) - len(prompt))]
    elif rng.random() < 0.04:
        prompt += [rng.randrange(4, 200) for _ in range(520)]
    if rng.random() < 0.06:
        prompt.append(rng.choice([POISON, NOT_A_NUMBER]))
    allowed, is_script = rng.choice([((), False)] * 4 + [(tuple(range(0, 250, 2)), False)])
    if rng.random() < 0.1:
        allowed, is_script = tuple(rng.sample(range(250), 5)), True
    modes: list[SpeculationMode] = ["off", "on", "auto"]
    request = Request(
        tuple(prompt),
        random_params(rng),
        stop=frozenset(rng.sample(range(vocab_size), rng.choice([0, 0, 8]))),
        boundaries=frozenset([BOUNDARY]),
        speculation=rng.choice(modes),
        timeout=rng.choice([None] * 9 + [rng.uniform(0.0005, 0.1)]),
    )
    cancel_after = rng.choice([None] * 5 + [0, rng.randint(1, 10)])
    return Plan(request, allowed, is_script, cancel_after, rng.random() < 0.5)


def random_params(rng: random.Random) -> SamplingParams:
    """Greedy, or with a seed; at times with a penalty, or log-probabilities."""
    return SamplingParams(
        temperature=rng.choice([0, 0, 0.7, 1]),
        top_p=rng.choice([1, 0.9]),
        seed=rng.randrange(1 << 32),
        max_tokens=rng.randint(1, 40),
        frequency_penalty=rng.choice([0, 0, 0, 0.5]),
        logprobs=rng.choice([None, None, 2]),
    )


def consume(engine: Engine, plan: Plan, report: Report) -> Outcome:
    """Submit until it is accepted; read until it ends, or for as long as planned."""
    constraint = plan.constraint(engine.model.config.vocab_size)
    request = replace(plan.request, constraint=constraint)
    while True:
        try:
            generation = engine.submit(request)
            break
        except BusyError:
            report.counts["busy"] += 1
            time.sleep(0.01)
    ids: list[int] = []
    try:
        if plan.cancel_after is None:
            ids.extend(generation)
        else:
            cancel(generation, plan, ids)
    except Exception as error:
        return Outcome(plan, ids, generation.finish_reason, error)
    if plan.is_forgotten and plan.cancel_after is not None:
        return Outcome(plan, ids, "forgotten")
    return Outcome(plan, ids, generation.finish_reason)


def cancel(generation: Generation, plan: Plan, ids: list[int]) -> None:
    """Read so many ids; then forget the rest, or close it and read what still comes."""
    tokens = iter(generation)
    while len(ids) < (plan.cancel_after or 0):
        if (i := next(tokens, None)) is None:
            return
        ids.append(i)
    if not plan.is_forgotten:
        generation.close()
        ids.extend(tokens)


def check_output(model: Model, outcome: Outcome, report: Report) -> None:
    """Each id is what the plain model draws after those before; only a near tie may differ."""
    ids, request = outcome.ids, outcome.plan.request
    if not ids:
        return
    fed = mx.array([[*request.prompt, *ids[:-1]]])
    logits = model(fed)[0, len(request.prompt) - 1 :]
    for at, (drawn, expected) in enumerate(zip(ids, draws(outcome.plan, logits, ids), strict=True)):
        if drawn != expected:
            nudged = logits.at[at, drawn].add(CLOSE)
            is_tie = draws(outcome.plan, nudged, ids)[at] == drawn
            assert is_tie, f"{drawn} instead of {expected}, as number {at} of {outcome}"
            report.counts["near ties"] += 1
    report.counts["ids checked"] += len(ids)


def draws(plan: Plan, logits: mx.array, ids: Sequence[int]) -> list[int]:
    """What is drawn from logits (T, V), each after the ids before it."""
    V, params, prompt = logits.shape[-1], plan.request.params, plan.request.prompt
    rows = [Row(params, params.seed or 0, prompt, V, ids[:at]) for at in range(len(ids))]
    return Sampler(rows)(logits, range(len(ids)), masks(plan, ids, V)).ids.tolist()  # pyright: ignore


def masks(plan: Plan, ids: Sequence[int], vocab_size: int) -> mx.array | None:
    """(T, V / 32): what the constraint allows in the place of each id."""
    constraint = plan.constraint(vocab_size)
    if constraint is None:
        return None
    found = [constraint.mask()]
    for i in ids[:-1]:
        constraint.advance(i)
        found.append(constraint.mask())
    return mx.array(np.stack(found))


def next_draw(model: Model, outcome: Outcome) -> int:
    """What would have been drawn next."""
    prompt, ids = outcome.plan.request.prompt, outcome.ids
    logits = model(mx.array([[*prompt, *ids]]))[0, len(prompt) - 1 :]
    return draws(outcome.plan, logits, [*ids, 0])[-1]


def check_end(model: Model, outcome: Outcome) -> None:
    """It ended for a reason that it had."""
    plan, ids, request = outcome.plan, outcome.ids, outcome.plan.request
    stops = [at for at, i in enumerate(ids) if i in request.stop]
    assert stops in ([], [len(ids) - 1])
    assert len(ids) <= (request.params.max_tokens or 0)
    if outcome.reason == "stop":
        assert stops
    elif outcome.reason == "length":
        assert len(ids) == request.params.max_tokens
    elif outcome.reason in ("cancelled", "forgotten"):
        assert plan.cancel_after is not None
    else:
        check_error(model, outcome)


def check_error(model: Model, outcome: Outcome) -> None:
    """Whoever failed had what makes a request fail, unless failures came at random."""
    fed, message = [*outcome.plan.request.prompt, *outcome.ids], str(outcome.error)
    if isinstance(outcome.error, DeadlineError):
        assert outcome.plan.request.timeout is not None
    elif "poison" in message:
        assert POISON in fed or next_draw(model, outcome) == POISON
    elif "not numbers" in message:
        assert NOT_A_NUMBER in fed
    elif isinstance(outcome.error, CacheFullError):
        assert len(fed) > 250
    elif "injected" not in message and "Killed" not in message:
        raise AssertionError("unforeseen") from outcome.error


@contextmanager
def watched(report: Report, sequences: list[Running]) -> Generator[None]:
    """Count what the engine does inside, and keep its sequences."""

    def generation(sequence: Running, *rest: object) -> Generation:
        sequences.append(sequence)
        return Generation(sequence, *rest)  # pyright: ignore[reportArgumentType]

    decode, requeue, make_room = Runner.decode, Scheduler.requeue, PrefixCache.make_room

    def counted_decode(runner: Runner, batch: Sequence[Running]) -> None:
        try:
            decode(runner, batch)
        except CacheFullError:
            report.counts["no room to decode"] += 1
            raise

    def counted_requeue(scheduler: Scheduler, given: Sequence[Running]) -> None:
        given = list(given)
        report.counts["requeued"] += len(given)
        requeue(scheduler, given)

    def counted_room(prefix: PrefixCache, nbytes: int = 0) -> bool:
        before = prefix.stats.evictions
        has_room = make_room(prefix, nbytes)
        report.counts["evictions"] += prefix.stats.evictions - before
        report.counts["most over"] = max(report.counts["most over"], prefix.nbytes - prefix.budget)
        return has_room

    with ExitStack() as stack:
        stack.enter_context(patch.object(engine_module, "Generation", generation))
        stack.enter_context(patch.object(Runner, "decode", counted_decode))
        stack.enter_context(patch.object(Scheduler, "requeue", counted_requeue))
        stack.enter_context(patch.object(PrefixCache, "make_room", counted_room))
        yield


def serve(engine: Engine, plans: Sequence[Plan], report: Report) -> list[Outcome]:
    """All plans through an engine, read by several threads."""
    todo, outcomes = list(plans), list[Outcome]()

    def work() -> None:
        while todo:
            try:
                plan = todo.pop()
            except IndexError:
                return
            outcomes.append(consume(engine, plan, report))

    threads = [threading.Thread(target=work, daemon=True) for _ in range(CONSUMERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(300)
    assert not any(thread.is_alive() for thread in threads), "a consumer waits forever"
    return outcomes


def check_events(sequences: list[Running]) -> None:
    """Every sequence ended, and said so exactly once, after all else."""
    for sequence in sequences:
        assert sequence.has_ended
        left: list[Token | tuple[int, int] | None] = []
        while not sequence.events.empty():
            left.append(sequence.events.get())
        assert left.count(None) <= 1
        assert None not in left[:-1]
        assert not left or left[-1] is None


def run(budget: int, plans: Sequence[Plan], seed: int, report: Report, deaths: float) -> None:
    """Plans through one engine; then nothing of them is left in it."""
    model, sequences = Faulty(random_model(), seed, 0.004, deaths), list[Running]()
    with (
        watched(report, sequences),
        Engine(model, prefill_chunk=32, max_running=4, max_waiting=2, cache_bytes=budget) as engine,
    ):
        outcomes = serve(engine, plans, report)
        assert settled(lambda: engine.health.running + engine.health.waiting == 0)
        assert settled(lambda: all(s.has_ended for s in sequences))
        assert len(outcomes) == len(sequences) == len(plans)
        report.counts["reused"] += engine.prefix.stats.reused_tokens
        engine.prefix.clear()
        assert (engine.prefix.nbytes, engine.prefix.num_places) == (0, 0)
    check_events(sequences)
    for outcome in outcomes:
        check_end(model.inner, outcome)
        check_output(model.inner, outcome, report)
    report.ends.update(outcome.kind for outcome in outcomes)
    report.counts.update(model.counts)


def soak(requests: int, seed: int = 0) -> Report:
    """So many random requests, by turns against engines with each of the budgets."""
    rng, report, model = random.Random(seed), Report(), random_model()
    V = model.config.vocab_size
    mx.eval(model(mx.array([[1, 2]])))
    objects, threads = live_objects(), threading.active_count()
    mx.clear_cache()
    nbytes = mx.get_active_memory()
    for number, budget in enumerate(BUDGETS):
        prompts = tree_of_prompts(rng, V)
        plans = [random_plan(rng, prompts, V) for _ in range(requests // len(BUDGETS))]
        run(budget, plans, rng.randrange(1 << 30), report, deaths=0.002 * (number == 2))
    report.left = live_objects() - objects
    mx.clear_cache()
    report.bytes_left = mx.get_active_memory() - nbytes
    assert threading.active_count() == threads
    return report


def check_nothing_left(report: Report) -> None:
    """No object and no memory; and what differed from the plain model were rare near ties."""
    assert not report.left
    assert report.bytes_left <= 64 * KIB  # constants that MLX and we keep
    assert report.counts["near ties"] <= 1 + report.counts["ids checked"] / 1000


def test_500_requests() -> None:
    """The whole soak, and what it saw: all that it is for did happen."""
    started = time.perf_counter()
    report = soak(500)
    print(f"\n{time.perf_counter() - started:.0f} s", report, sep="\n")  # noqa: T201
    check_nothing_left(report)
    for event in ("no room to decode", "requeued", "evictions", "busy", "before", "half-way"):
        assert report.counts[event], event
    for end in ("stop", "length", "cancelled", "forgotten", "EngineError", "DeadlineError"):
        assert report.ends[end], end
    assert report.ends["CacheFullError"]
    assert report.counts["deaths"]
