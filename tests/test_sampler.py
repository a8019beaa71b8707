"""Each step of a draw against plain numpy, and the frequencies of many draws."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from unittest.mock import Mock

import mlx.core as mx
import numpy as np
import pytest
from helpers import array
from numpy.typing import NDArray

from gptoss_mlx.config import SamplingParams
from gptoss_mlx.errors import UsageError
from gptoss_mlx.sampler import (
    Draw,
    Row,
    Sampler,
    gumbel,
    keep_allowed,
    keep_likeliest,
    keep_min_p,
    penalize,
)

Floats = NDArray[np.float64]
LOGITS = np.log([0.05, 0.4, 0.1, 0.25, 0.2])
DRAWS = 20_000
SIZES = [5, 32, 33, 257, 1000]
GREEDY = SamplingParams(temperature=0)
# One of each kind, to be mixed in a batch.
KINDS = {
    "greedy": GREEDY,
    "plain": SamplingParams(),
    "hot": SamplingParams(3.0, logprobs=4),
    "top_p": SamplingParams(top_p=0.7),
    "top_k": SamplingParams(top_k=7),
    "min_p": SamplingParams(2.0, min_p=0.2),
    "biased": SamplingParams(logit_bias=((3, 5.0), (7, -100.0))),
    "penalized": SamplingParams(0.5, repetition_penalty=1.3, presence_penalty=0.5),
    "greedy, penalized": SamplingParams(0.0, frequency_penalty=1.5, logprobs=0),
}


def random_logits(rows: int, size: int, seed: int = 0) -> NDArray[np.float32]:
    """Normal numbers, and no two alike in a row."""
    return np.random.default_rng(seed).normal(scale=2, size=(rows, size)).astype(np.float32)


def draw(
    logits: NDArray[np.floating[Any]],
    params: SamplingParams,
    positions: Sequence[int] | None = None,
    seed: int = 0,
    mask: mx.array | None = None,
) -> Draw:
    """Draw from each row of logits (T, V), all of one sequence, at positions 0, 1, ..."""
    sampler = Sampler([Row(params, seed, [], logits.shape[-1])])
    return sampler(mx.array(logits), positions or range(len(logits)), mask)


def ids_of(drawn: Draw) -> list[int]:
    """The ids of a draw."""
    return array(drawn.ids).astype(int).tolist()


def many(params: SamplingParams, seed: int = 0) -> list[int]:
    """Many ids drawn from LOGITS."""
    return ids_of(draw(np.tile(LOGITS.astype(np.float32), (DRAWS, 1)), params, seed=seed))


def column(values: Sequence[float]) -> mx.array:
    """One number a row."""
    return mx.array(list(values), mx.float32)[:, None]


def softmax(row: Floats) -> Floats:
    """Probabilities."""
    return np.exp(row - row.max()) / np.exp(row - row.max()).sum()


def numpy_likeliest(row: Floats, top_k: int, top_p: float) -> set[int]:
    """The top_k likeliest, and of them one after the other until they have the probability."""
    best = np.argsort(-row)[:top_k]
    probabilities = softmax(row[best])
    kept = 1
    while kept < len(best) and probabilities[:kept].sum() < top_p:
        kept += 1
    return set(best[:kept].tolist())


def assert_keeps(found: mx.array, logits: NDArray[np.float32], expected: list[set[int]]) -> None:
    """What is kept is as it was, and all else is -inf."""
    for row, before, kept in zip(array(found), logits, expected, strict=True):
        assert set(np.flatnonzero(np.isfinite(row)).tolist()) == kept
        assert np.isneginf(np.delete(row, list(kept))).all()
        np.testing.assert_array_equal(row[list(kept)], before[list(kept)])


@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16])
@pytest.mark.parametrize(
    "params", [GREEDY, SamplingParams(0.0, 0.1, seed=9, top_k=3, min_p=0.5), SamplingParams(1e-6)]
)
def test_temperature_zero_is_greedy(dtype: mx.Dtype, params: SamplingParams) -> None:
    """The largest logit of each row wins, whatever the seed and the rest of the parameters."""
    logits = mx.random.normal((7, 50), key=mx.random.key(1)).astype(dtype)
    for seed in range(3):
        drawn = Sampler([Row(params, seed, [], 50)])(logits, range(7))
        assert ids_of(drawn) == array(logits).argmax(axis=-1).tolist()


def test_greedy_ties_go_to_the_first() -> None:
    """Of equal logits the lowest id is taken, beside rows that are drawn, too."""
    logits = mx.array([[1.0, 3.0, 3.0, 3.0], [0.0] * 4])
    rows = [Row(GREEDY, 0, [], 4), Row(SamplingParams(), 0, [], 4)]
    assert {ids_of(Sampler(rows)(logits, (i, i)))[0] for i in range(20)} == {1}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("top_p", [1e-9, 0.01, 0.3, 0.5, 0.9, 0.999, 1.0])
def test_keep_likeliest_is_the_definition(size: int, top_p: float) -> None:
    """The ids kept are those of the definition, each row by its own top_k."""
    logits = random_logits(20, size)
    sizes = [1 + (7 * i) % size for i in range(19)] + [size]
    found = keep_likeliest(mx.array(logits), mx.array(sizes)[:, None], column([top_p] * 20))
    rows = zip(logits.astype(np.float64), sizes, strict=True)
    assert_keeps(found, logits, [numpy_likeliest(row, top_k, top_p) for row, top_k in rows])


@pytest.mark.parametrize(("top_p", "kept"), [(0.7, {1, 3, 4}), (1e-6, {1}), (0.3, {1})])
def test_the_id_that_crosses_the_bound_stays(top_p: float, kept: set[int]) -> None:
    """0.4 + 0.25 is not yet 0.7, so the third likeliest is kept, too; a tiny top_p keeps one."""
    logits = LOGITS[None].astype(np.float32)
    assert_keeps(keep_likeliest(mx.array(logits), mx.array([[5]]), column([top_p])), logits, [kept])


@pytest.mark.parametrize(
    ("top_k", "top_p", "kept"),
    [(2, 1.0, {1, 2, 3, 4}), (6, 0.5, {1, 2, 3, 4}), (2, 0.4, {1}), (5, 1.0, {0, 1, 2, 3, 4})],
)
def test_ties_with_the_last_stay(top_k: int, top_p: float, kept: set[int]) -> None:
    """Ids as likely as the last one kept are kept with it."""
    logits = np.array([[0, 2, 1, 1, 1, -1]], np.float32)
    assert_keeps(
        keep_likeliest(mx.array(logits), mx.array([[top_k]]), column([top_p])), logits, [kept]
    )


@pytest.mark.parametrize("size", SIZES)
def test_keep_min_p_is_the_definition(size: int) -> None:
    """Kept is what has at least that share of the largest probability, row by row; 0 keeps all."""
    logits = random_logits(5, size)
    shares = [0.0, 0.01, 0.1, 0.5, 1.0]
    probabilities = [softmax(row) for row in logits.astype(np.float64)]
    expected = [
        set(np.flatnonzero(p >= share * p.max()).tolist())
        for p, share in zip(probabilities, shares, strict=True)
    ]
    assert_keeps(keep_min_p(mx.array(logits), column(shares)), logits, expected)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", [mx.uint32, mx.int32])
def test_masks(size: int, dtype: mx.Dtype) -> None:
    """Bit j of word i stands for id 32 i + j, also in the last word, which may be a part of one."""
    allowed = np.random.default_rng(1).random((3, -(-size // 32) * 32)) < 0.5
    words = np.packbits(allowed, axis=-1, bitorder="little").view(np.uint32)
    logits = random_logits(3, size)
    mask = mx.array(words).view(dtype)
    expected = [set(np.flatnonzero(row[:size]).tolist()) for row in allowed]
    assert_keeps(keep_allowed(mx.array(logits), mask.view(mx.uint32)), logits, expected)
    best = [max(kept, key=lambda i: row[i]) for kept, row in zip(expected, logits, strict=True)]
    assert ids_of(draw(logits, GREEDY, mask=mask)) == best


@pytest.mark.parametrize(
    "params", [SamplingParams(top_k=1), SamplingParams(top_p=0.01), SamplingParams(min_p=0.9)]
)
def test_an_allowed_id_always_survives(params: SamplingParams) -> None:
    """The likeliest are chosen among those that the mask allows, however unlikely."""
    logits = np.array([[50, -50, 40, -60]] * 50, np.float32)
    mask = mx.full((50, 1), 0b1010, mx.uint32)
    assert set(ids_of(draw(logits, params, mask=mask))) == {1}


@pytest.mark.parametrize("size", SIZES)
def test_penalize_is_the_definition(size: int) -> None:
    """Each of the three penalties is what its source defines, row by row."""
    logits = random_logits(4, size)
    rng = np.random.default_rng(2)
    counts, in_prompt = rng.integers(0, 4, (4, size)), rng.random((4, size)) < 0.3
    repetition, presence, frequency = [1.0, 1.2, 1.0, 0.7], [0, 0, 1.5, -1], [0, 0.5, 0, 2]
    found = penalize(
        mx.array(logits),
        mx.array(counts.astype(np.float32)),
        mx.array(in_prompt.tolist()),
        *map(column, (repetition, presence, frequency)),
    )
    expected = np.array(
        [
            numpy_penalties(logits[i], counts[i], in_prompt[i], *numbers)
            for i, numbers in enumerate(zip(repetition, presence, frequency, strict=True))
        ]
    )
    np.testing.assert_allclose(array(found), expected, rtol=1e-6, atol=1e-6)


def numpy_penalties(
    logits: NDArray[np.float32],
    counts: NDArray[np.int64],
    in_prompt: NDArray[np.bool_],
    repetition: float,
    presence: float,
    frequency: float,
) -> Floats:
    """arXiv 1909.05858, and OpenAI's mu[j] - c[j] * frequency - (c[j] > 0) * presence."""
    found = logits.astype(np.float64)
    for j in range(len(found)):
        if in_prompt[j] or counts[j]:
            found[j] = found[j] / repetition if found[j] > 0 else found[j] * repetition
        found[j] -= counts[j] * frequency + (counts[j] > 0) * presence
    return found


@pytest.mark.parametrize(
    ("repetition", "presence", "frequency"), [(1.4, 0, 0), (1, 1.5, 0), (1, 0, 0.4), (1.2, -1, 0.3)]
)
def test_penalties_over_several_steps(repetition: float, presence: float, frequency: float) -> None:
    """What is drawn counts at once, through changes of the batch, and only in its own row."""
    params = replace(
        GREEDY,
        repetition_penalty=repetition,
        presence_penalty=presence,
        frequency_penalty=frequency,
    )
    prompt, steps = [4, 5, 5, 6], random_logits(30, 40)
    row, other = Row(params, 0, prompt, 40), Row(replace(params, seed=1), 0, [1], 40)
    found: list[int] = []
    batches = [[row], [other, row], [row, Row(GREEDY, 0, [], 40), other]]  # the row moves about
    for start in range(0, len(steps), 7):
        rows = batches[start // 7 % 3]
        sampler = Sampler(rows)
        for i, logits in enumerate(steps[start : start + 7]):
            drawn = sampler(mx.array(np.tile(logits, (len(rows), 1))), [i] * len(rows))
            found.append(ids_of(drawn)[rows.index(row)])
    assert found == _numpy_steps(steps, prompt, repetition, presence, frequency)


def _numpy_steps(steps: NDArray[np.float32], prompt: list[int], *penalties: float) -> list[int]:
    counts, in_prompt = np.zeros(steps.shape[1], np.int64), np.zeros(steps.shape[1], np.bool_)
    in_prompt[prompt] = True
    found: list[int] = []
    for logits in steps:
        found.append(int(numpy_penalties(logits, counts, in_prompt, *penalties).argmax()))
        counts[found[-1]] += 1
    return found


def test_a_bias_is_added() -> None:
    """It lifts one id over the others, or rules one out, also where the temperature is 0."""
    logits = np.array([[1, 2, 3]] * 200, np.float32)
    assert set(ids_of(draw(logits, replace(GREEDY, logit_bias=((0, 2.5),))))) == {0}
    assert set(ids_of(draw(logits, SamplingParams(logit_bias=((2, -100.0),))))) == {0, 1}


def test_a_bias_outside_the_vocabulary_is_refused() -> None:
    """The message has the ids that there are."""
    Row(SamplingParams(logit_bias=((256, 1.0),)), 0, [], 257)
    with pytest.raises(UsageError, match=r"logit_bias.* 0\.\.256$"):
        Row(SamplingParams(logit_bias=((257, 1.0),)), 0, [], 257)


@pytest.mark.parametrize(
    ("params", "probabilities"),
    [
        pytest.param(SamplingParams(), [0.05, 0.4, 0.1, 0.25, 0.2], id="as they are"),
        pytest.param(SamplingParams(0.5), [0.0025, 0.16, 0.01, 0.0625, 0.04], id="colder"),
        pytest.param(SamplingParams(2.0), np.sqrt([0.05, 0.4, 0.1, 0.25, 0.2]), id="hotter"),
        pytest.param(SamplingParams(top_p=0.6), [0, 0.4, 0, 0.25, 0], id="nucleus"),
        pytest.param(SamplingParams(2.0, 0.4), np.sqrt([0, 0.4, 0, 0.25, 0]), id="both"),
        pytest.param(SamplingParams(top_k=3), [0, 0.4, 0, 0.25, 0.2], id="top_k"),
        pytest.param(SamplingParams(top_k=7), [0.05, 0.4, 0.1, 0.25, 0.2], id="more than all"),
        pytest.param(SamplingParams(top_p=0.7, top_k=3), [0, 0.4, 0, 0.25, 0], id="of the top_k"),
        pytest.param(SamplingParams(min_p=0.3), [0, 0.4, 0, 0.25, 0.2], id="min_p"),
        pytest.param(
            SamplingParams(logit_bias=((0, 2.0),)),
            [0.05 * np.exp(2), 0.4, 0.1, 0.25, 0.2],
            id="bias",
        ),
    ],
)
def test_frequencies(params: SamplingParams, probabilities: Floats) -> None:
    """Draws have the frequencies that the parameters define (chi-square, p > 0.001)."""
    expected = np.array(probabilities) / np.sum(probabilities) * DRAWS
    counts = np.bincount(many(params), minlength=len(LOGITS))
    possible = expected > 0
    assert (counts[~possible] == 0).all()
    chi_square = ((counts - expected)[possible] ** 2 / expected[possible]).sum()
    assert chi_square < 18.5  # 4 degrees of freedom


def test_seed_and_position_decide() -> None:
    """The same seed and positions give the same ids; another of either, in any bit, others."""
    logits = np.zeros((64, 1000), np.float32)
    first = ids_of(draw(logits, SamplingParams(), range(64), seed=3))
    mx.random.seed(5)
    assert ids_of(draw(logits, SamplingParams(), range(64), seed=3)) == first
    for seed, start in ((4, 0), (3 + 2**32, 0), (3 + 2**63, 0), (3, 64), (3, 2**32)):
        other = ids_of(draw(logits, SamplingParams(), range(start, start + 64), seed=seed))
        assert sum(np.equal(first, other)) < 5


def test_noise_is_finite(monkeypatch: pytest.MonkeyPatch) -> None:
    """At both ends of what MLX's uniform numbers may be."""
    for end in (0.0, 1 - 2.0**-24):
        monkeypatch.setattr(mx.random, "uniform", Mock(return_value=mx.array([end])))
        noise = array(gumbel(mx.zeros((1, 2), mx.uint32), 1))
        assert np.isfinite(noise).all()


def test_noise_of_a_row_is_its_own() -> None:
    """A row of a batch has the noise of its key alone, bit for bit, at any vocabulary size."""
    keys = mx.array(np.random.default_rng(0).integers(0, 2**32, (9, 2), dtype=np.uint32))
    for size in (1, *SIZES):
        together = array(gumbel(keys, size))
        alone = [array(gumbel(keys[i : i + 1], size))[0] for i in range(9)]
        np.testing.assert_array_equal(together, alone)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("size", [33, 257])
def test_a_batch_changes_nothing(name: str, size: int) -> None:
    """Among rows of every kind each draws, over several steps, what it draws alone."""
    logits = mx.array(random_logits(len(KINDS), size))
    index = list(KINDS).index(name)

    def row(i: int) -> Row:
        return Row(list(KINDS.values())[i], i, [1, 2, 3], size)

    batch, alone = Sampler([row(i) for i in range(len(KINDS))]), Sampler([row(index)])
    for step in range(8):
        together = batch(logits, [step + 5 * i for i in range(len(KINDS))])
        single = alone(logits[index : index + 1], [step + 5 * index])
        assert ids_of(together)[index] == ids_of(single)[0]
        if single.logprobs is not None and together.logprobs is not None:
            assert together.logprobs[index].item() == single.logprobs[0].item()


@pytest.mark.parametrize("name", [name for name in KINDS if "penalized" not in name])
def test_several_positions_of_one_sequence(name: str) -> None:
    """A row that is memoryless draws several positions at once as it does one by one."""
    logits = mx.array(random_logits(6, 257))
    sampler = Sampler([Row(KINDS[name], 7, [], 257)])
    together = ids_of(sampler(logits, range(10, 16)))
    assert together == [ids_of(sampler(logits[i : i + 1], [10 + i]))[0] for i in range(6)]


def test_penalties_take_one_position_at_a_time() -> None:
    """A row with memory says so, and neither several positions nor two places are drawn for it."""
    rows = {name: Row(params, 0, [], 9) for name, params in KINDS.items() if "bias" not in name}
    assert [name for name, row in rows.items() if not row.is_memoryless] == [
        "penalized",
        "greedy, penalized",
    ]
    with pytest.raises(AssertionError, match="one position at a time"):
        Sampler([rows["penalized"]])(mx.zeros((2, 9)), (0, 1))
    with pytest.raises(AssertionError):
        Sampler([rows["penalized"]] * 2)


@pytest.mark.parametrize("name", KINDS)
def test_a_nan_is_told_of_its_row_only(name: str) -> None:
    """One NaN marks its row; the others draw as if it were not there, and all ids exist."""
    logits = random_logits(3, 257)
    clean, spoilt = ids_of(_three(name, logits)), logits.copy()
    spoilt[1, 200] = np.nan
    drawn = _three(name, spoilt)
    assert array(drawn.is_number).tolist() == [1, 0, 1]
    assert ids_of(drawn)[::2] == clean[::2]
    assert ids_of(drawn)[1] < 257


def _three(name: str, logits: NDArray[np.float32]) -> Draw:
    rows = [Row(KINDS[name], i, [], 257) for i in range(3)]
    return Sampler(rows)(mx.array(logits), (0, 0, 0), mx.full((3, 9), 2**32 - 1, mx.uint32))


@pytest.mark.parametrize(
    "params", [SamplingParams(5.0, 0.99), SamplingParams(5.0, top_k=3), SamplingParams(5.0)]
)
def test_an_impossible_id_is_never_drawn(params: SamplingParams) -> None:
    """A logit of -inf has no probability, at any temperature, and is a number."""
    drawn = draw(np.array([[0, -np.inf, 0, -np.inf]] * 500, np.float32), params)
    assert set(ids_of(drawn)) == {0, 2}
    assert array(drawn.is_number).all()


@pytest.mark.parametrize("size", SIZES)
def test_logprobs_are_the_models_own(size: int) -> None:
    """Log-softmax of the logits as they came, whatever is done to them before the draw."""
    params = SamplingParams(
        2.0, 0.9, repetition_penalty=2.0, logit_bias=((0, 9.0),), logprobs=3, min_p=0.1
    )
    logits = random_logits(4, size)
    mask = mx.full((4, -(-size // 32)), 0b10101, mx.uint32)
    drawn = Sampler([Row(params, i, [1, 2], size) for i in range(4)])(
        mx.array(logits), range(4), mask
    )
    expected = np.array([np.log(softmax(row)) for row in logits.astype(np.float64)])
    best = np.argsort(-expected, axis=-1)[:, :3]
    assert drawn.logprobs is not None
    assert drawn.top_ids is not None
    assert drawn.top_logprobs is not None
    np.testing.assert_allclose(
        array(drawn.logprobs), expected[np.arange(4), ids_of(drawn)], rtol=1e-5, atol=1e-5
    )
    assert array(drawn.top_ids).tolist() == best.tolist()
    np.testing.assert_allclose(
        array(drawn.top_logprobs), np.take_along_axis(expected, best, -1), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize(
    ("asked", "shape"), [([None, 0], None), ([2, 20], (2, 20)), ([None, 5], (2, 5))]
)
def test_as_many_logprobs_as_any_row_asks_for(
    asked: list[int | None], shape: tuple[int, int] | None
) -> None:
    """0 asks for the chosen id's alone."""
    rows = [Row(SamplingParams(logprobs=n), 0, [], 33) for n in asked]
    drawn = Sampler(rows)(mx.zeros((2, 33)), (0, 0))
    assert drawn.logprobs is not None
    assert drawn.logprobs.shape == (2,)
    assert (drawn.top_ids.shape if drawn.top_ids is not None else None) == shape
    assert len(drawn.arrays) == (5 if shape else 3)


def test_no_more_logprobs_than_ids() -> None:
    """A vocabulary smaller than what is asked for gives all it has."""
    drawn = draw(LOGITS[None].astype(np.float32), SamplingParams(logprobs=20))
    assert drawn.top_ids is not None
    assert array(drawn.top_ids).tolist() == [[1, 3, 4, 2, 0]]


@pytest.mark.parametrize(
    ("function", "params"),
    [("random.uniform", GREEDY), ("sort", SamplingParams()), ("logsumexp", SamplingParams())],
)
def test_what_nobody_asks_for_is_not_computed(
    monkeypatch: pytest.MonkeyPatch, function: str, params: SamplingParams
) -> None:
    """No noise for greedy rows, no order without top_k and top_p, no sums without logprobs."""

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError(function)

    monkeypatch.setattr(f"mlx.core.{function}", fail)
    draw(LOGITS[None].astype(np.float32), params)
    with pytest.raises(RuntimeError, match=function):
        draw(LOGITS[None].astype(np.float32), SamplingParams(top_k=2, logprobs=0))


def test_compiled_or_not() -> None:
    """The compiled graph draws what its steps draw, through several of them."""
    logits = mx.array(random_logits(len(KINDS), 257))
    mask = mx.full((len(KINDS), 9), 0x7FFFFFFF, mx.uint32)
    found: list[list[list[int]]] = []
    for compiled in (False, True):
        rows = [Row(params, i, [1, 2, 3], 257) for i, params in enumerate(KINDS.values())]
        sampler = Sampler(rows, compiled=compiled)
        steps = [sampler(logits, [step] * len(rows), mask) for step in range(6)]
        found.append([ids_of(drawn) for drawn in steps])
    assert found[0] == found[1]
