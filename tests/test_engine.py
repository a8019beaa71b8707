"""The engine: its ids against a plain loop without a cache, limits, statistics, interruption."""

from __future__ import annotations

import time
from dataclasses import replace
from itertools import islice

import mlx.core as mx
import pytest
from checkpoints import TINY
from helpers import ReplayModel, array, random_model

from gptoss_mlx.cache import Cache
from gptoss_mlx.config import SamplingParams
from gptoss_mlx.engine import Engine
from gptoss_mlx.errors import ContextLengthError, UsageError
from gptoss_mlx.model import Model
from gptoss_mlx.tokenizer import VOCAB_SIZE

PROMPT = [(5 * i * i + 1) % TINY.vocab_size for i in range(40)]
GREEDY = SamplingParams(temperature=0, max_tokens=25)


@pytest.fixture(scope="session")
def model() -> Model:
    """A small random model."""
    return random_model()


@pytest.fixture(scope="session")
def greedy_ids(model: Model) -> list[int]:
    """The greedy continuation of PROMPT by a loop that computes everything anew each step."""
    ids = list(PROMPT)
    for _ in range(25):
        ids.append(int(array(model(mx.array([ids]))[0, -1]).argmax()))
    return ids[len(PROMPT) :]


@pytest.mark.parametrize("chunk", [1, 2, 7, 8, 9, 39, 40, 41, 1000])
def test_greedy_is_argmax_whatever_the_chunk(
    model: Model, greedy_ids: list[int], chunk: int
) -> None:
    """Prefilled in chunks of any size, a prompt has the continuation of the plain loop."""
    assert list(Engine(model, prefill_chunk=chunk).generate(PROMPT, GREEDY)) == greedy_ids


@pytest.mark.parametrize("length", [1, 2, 7, 8, 9])
def test_short_prompts(model: Model, length: int) -> None:
    """Around the window's length, down to one id, chunks of three change nothing."""
    prompt = PROMPT[:length]
    whole, cut = (list(Engine(model, prefill_chunk=c).generate(prompt, GREEDY)) for c in (99, 3))
    first = int(array(model(mx.array([prompt]))[0, -1]).argmax())
    assert whole == cut
    assert whole[0] == first


def test_every_id_is_fed_once() -> None:
    """The model is given the prompt and then its own ids, each once and in order."""
    model = ReplayModel([11, 12, 13])
    generation = Engine(model, prefill_chunk=2).generate([1, 2, 3, 4, 5], stop=(13,))
    assert list(generation) == [11, 12, 13]
    assert model.prompts == {0: [1, 2, 3, 4, 5]}
    assert model.seen[0][:7] == [1, 2, 3, 4, 5, 11, 12]


@pytest.mark.parametrize("top_p", [1.0, 0.9])
def test_a_seed_repeats_a_completion(model: Model, top_p: float) -> None:
    """The same seed gives the same ids, whatever ran in between; other seeds give others."""
    engine = Engine(model)
    params = SamplingParams(top_p=top_p, seed=7, max_tokens=30)
    first = list(engine.generate(PROMPT, params))
    mx.random.seed(123)
    assert list(engine.generate(PROMPT, replace(params, seed=8))) != first
    assert list(engine.generate(PROMPT, params)) == first


def test_without_a_seed_completions_differ(model: Model) -> None:
    """Two unseeded requests draw differently, and MLX's global seed has no part in it."""
    found: list[list[int]] = []
    for _ in range(2):
        mx.random.seed(0)
        found.append(list(Engine(model).generate(PROMPT, SamplingParams(max_tokens=30))))
    assert found[0] != found[1]


def test_each_step_has_its_own_key() -> None:
    """From logits that are always the same, one after the other draws are independent."""

    class UniformModel(ReplayModel):
        def logits(self, x: mx.array) -> mx.array:
            return mx.zeros((*x.shape[:-1], VOCAB_SIZE))

    params = SamplingParams(seed=1, max_tokens=20)
    assert len(set(Engine(UniformModel([])).generate([1], params))) > 15


@pytest.mark.parametrize("position", [0, 1, 24])
def test_the_stop_id_is_the_last_one(model: Model, greedy_ids: list[int], position: int) -> None:
    """A completion ends with the first stop id, which it includes."""
    stop = greedy_ids[position]
    expected = greedy_ids[: greedy_ids.index(stop) + 1]
    assert list(Engine(model).generate(PROMPT, GREEDY, stop={stop})) == expected


@pytest.mark.parametrize("max_tokens", [0, 1, 2, 10])
def test_max_tokens(model: Model, greedy_ids: list[int], max_tokens: int) -> None:
    """No more ids than asked for, none included."""
    generation = Engine(model).generate(PROMPT, replace(GREEDY, max_tokens=max_tokens))
    assert list(generation) == greedy_ids[:max_tokens]
    assert generation.stats.completion_tokens == max_tokens


def test_the_context_ends_a_completion() -> None:
    """Prompt and completion together fill the context, and no id is drawn beyond it."""
    model = ReplayModel([9] * 100, max_context_length=64)
    assert list(Engine(model).generate([1] * 60)) == [9] * 4
    model = ReplayModel([9] * 100, max_context_length=64)
    assert list(Engine(model).generate([1] * 63, SamplingParams(max_tokens=50))) == [9]


@pytest.mark.parametrize("length", [64, 65, 1000])
def test_prompts_that_fill_the_context(length: int) -> None:
    """A prompt that leaves no room is refused at once, with both numbers in the message."""
    model = ReplayModel([9], max_context_length=64)
    with pytest.raises(ContextLengthError, match=f"{length:,} tokens.* 64"):
        Engine(model).generate([1] * length)
    assert model.seen == []


@pytest.mark.parametrize("prompt", [[], [-1], [1, 2, TINY.vocab_size], [1 << 40]])
def test_prompts_that_are_none(model: Model, prompt: list[int]) -> None:
    """An empty prompt and ids outside the vocabulary are refused before anything is computed."""
    with pytest.raises(UsageError, match=r"0\.\.256"):
        Engine(model).generate(prompt)


@pytest.mark.parametrize("chunk", [1, 16, 20, 40, 1000])
def test_a_prefill_can_be_watched(chunk: int) -> None:
    """It is told from nothing to the whole prompt, a chunk at a time, before the first id."""
    seen: list[tuple[int, int]] = []
    engine = Engine(ReplayModel([9, 9]), prefill_chunk=chunk)
    generation = engine.generate(
        PROMPT, GREEDY, on_prefill=lambda done, total: seen.append((done, total))
    )
    assert seen == []
    ids = iter(generation)
    next(ids)
    expected = [(done, 40) for done in [*range(0, 40, chunk), 40]]
    assert seen == expected
    list(ids)
    assert seen == expected


def test_stats_add_up(model: Model) -> None:
    """Tokens are counted and the times are those of the clock."""
    started = time.perf_counter()
    generation = Engine(model).generate(PROMPT, GREEDY)
    assert len(list(generation)) == 25
    elapsed = time.perf_counter() - started
    stats = generation.stats
    assert (stats.prompt_tokens, stats.cached_tokens, stats.completion_tokens) == (40, 0, 25)
    assert min(stats.queue_seconds, stats.prefill_seconds, stats.decode_seconds) > 0
    total = stats.queue_seconds + stats.prefill_seconds + stats.decode_seconds
    assert elapsed / 2 < total < elapsed
    assert stats.prefill_rate == 40 / stats.prefill_seconds
    assert stats.decode_rate == 24 / stats.decode_seconds


def test_stats_of_little(model: Model) -> None:
    """Without a second token there is no rate, and nothing is divided by it."""
    for max_tokens in (0, 1):
        generation = Engine(model).generate(PROMPT, replace(GREEDY, max_tokens=max_tokens))
        list(generation)
        assert generation.stats.decode_rate == 0
        assert (generation.stats.prefill_rate > 0) == (max_tokens > 0)


def test_an_abandoned_completion_does_no_harm(model: Model, greedy_ids: list[int]) -> None:
    """After a completion is dropped half-way, the next one starts from its own prompt."""
    engine = Engine(model)
    assert list(islice(engine.generate(PROMPT, GREEDY), 3)) == greedy_ids[:3]
    assert list(engine.generate(PROMPT, GREEDY)) == greedy_ids


def test_two_completions_at_a_time(model: Model, greedy_ids: list[int]) -> None:
    """Completions that are read by turns do not share a cache."""
    engine = Engine(model)
    pair = zip(engine.generate(PROMPT, GREEDY), engine.generate(PROMPT, GREEDY), strict=True)
    assert list(pair) == list(zip(greedy_ids, greedy_ids, strict=True))


def test_answers_go_on_while_a_prompt_is_read() -> None:
    """They get a third of the time, and not only one token a chunk."""
    passes: list[int] = []  # tokens of each sequence that go through the model at once

    class Slow(ReplayModel):
        def hidden_states(self, ids: mx.array, *caches: Cache) -> mx.array:
            passes.append(ids.shape[1])
            time.sleep(0.05 if ids.shape[1] > 1 else 0.002)
            return super().hidden_states(ids, *caches)

    with Engine(Slow([7] * 400, [8]), prefill_chunk=10) as engine:
        answer = engine.generate([1, 2, 3], SamplingParams(max_tokens=400))
        tokens = iter(answer)  # forgotten, it would be closed
        assert next(tokens) == 7
        asked = engine.generate(list(range(100)), SamplingParams(max_tokens=1))
        list(asked)
        answer.close()
    chunks = [place for place, size in enumerate(passes) if size == 10]
    assert len(chunks) == 10
    assert chunks[-1] - chunks[0] - 9 >= 2 * 9  # some 12 fit into each gap
