"""The cache: what full and sliding layers keep, over buffer growth and at the window's edges."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from checkpoints import TINY
from helpers import array, random_model
from numpy.typing import NDArray

from gptoss_mlx.cache import MAX_TRIM, Cache, FullLayer, LayerCache, SlidingLayer, window_bytes
from gptoss_mlx.config import ModelConfig, SamplingParams
from gptoss_mlx.convert.synthetic import GPT_OSS_20B
from gptoss_mlx.engine import Engine
from gptoss_mlx.errors import UsageError
from gptoss_mlx.model import Model
from gptoss_mlx.segment import KVBits, Segment, position_bytes

HEADS, D = 2, 32


@pytest.fixture(params=[16, 8])
def bits(request: pytest.FixtureRequest) -> KVBits:
    """Of the full layers' numbers. Heads whose numbers are all the same are exact in 8, too."""
    return request.param


def positions(start: int, stop: int) -> mx.array:
    """Keys (1, heads, T, D) that tell their position."""
    return mx.broadcast_to(
        mx.arange(start, stop)[None, None, :, None] * 1.0, (1, HEADS, stop - start, D)
    )


def held(layer: LayerCache, lengths: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    """The positions of the keys and values that each append of so many tokens returns."""
    found: list[tuple[list[int], list[int]]] = []
    start = 0
    for length in lengths:
        new = positions(start, start + length)
        [part] = layer.append(new, -new)
        k, v = part.keys, part.values
        assert k.shape == v.shape == (1, HEADS, part.length, D)
        ks, vs = (np.array(x)[0, -1, :, -1].astype(int).tolist() for x in (k, -v))
        found.append((ks, vs))
        start += length
    return found


def full_layer(bits: KVBits) -> FullLayer:
    """An empty one."""
    return FullLayer(Segment(1, bits).layers[0])


@pytest.mark.parametrize(
    "lengths",
    [[1], [1] * 5, [255, 1, 1], [256, 1], [257], [200, 200, 200], [600, 1], [1, 1000], [256, 256]],
)
def test_full_layers_keep_everything(lengths: list[int], bits: KVBits) -> None:
    """Every append returns all positions so far, in order, however the buffer had to grow."""
    layer = full_layer(bits)
    for end, (k, v) in zip(np.cumsum(lengths), held(layer, lengths), strict=True):
        assert k == v == list(range(end))


@pytest.mark.parametrize(("tokens", "capacity"), [(1, 256), (256, 256), (257, 512), (1025, 1280)])
def test_full_layers_grow_in_steps(tokens: int, capacity: int, bits: KVBits) -> None:
    """Buffers are a multiple of 256 positions, and no longer than they must be."""
    layer = full_layer(bits)
    held(layer, [1] if tokens == 1 else [1, tokens - 1])
    widths = [D, D] if bits == 16 else [D // 4, 1, 1] * 2  # words of four numbers, scales, biases
    assert [a.shape for a in layer.arrays] == [(1, HEADS, capacity, width) for width in widths]


def test_appending_leaves_earlier_results_alone(bits: KVBits) -> None:
    """What an append returned does not change when later ones write into the same buffer."""
    layer = full_layer(bits)
    [first] = layer.append(positions(0, 3), positions(0, 3))
    layer.append(positions(3, 9), positions(3, 9))
    assert np.array(first.keys)[0, 0, :, 0].tolist() == [0, 1, 2]


@pytest.mark.parametrize("window", [1, 2, 8])
@pytest.mark.parametrize(
    "lengths",
    [[1] * 12, [1] * 530, [6, 1, 1, 1], [7, 1], [8, 1], [9, 1, 1], [30, 1, 1], [3, 5, 20, 2, 1]],
)
def test_sliding_layers_keep_the_window(window: int, lengths: list[int]) -> None:
    """An append returns its own tokens and the window - 1 before them, in order, no others."""
    layer = SlidingLayer(window)
    start = 0
    for length, (k, v) in zip(lengths, held(layer, lengths), strict=True):
        assert k == v == list(range(max(0, start - (window - 1)), start + length))
        start += length


@pytest.mark.parametrize("lengths", [[300], [1] * 300, [8, 8, 300], [3, 900, 2]])
def test_sliding_layers_do_not_grow(lengths: list[int]) -> None:
    """A sliding layer has room for its window and 256 positions more, however many came."""
    layer = SlidingLayer(8)
    held(layer, lengths)
    assert [a.shape for a in layer.arrays] == [(1, HEADS, 7 + MAX_TRIM + 256, D)] * 2


def fill(cache: Cache, stop: int, step: int = 1000) -> None:
    """Append positions up to `stop` to every layer, so many at a time."""
    while cache.offset < stop:
        T = min(step, stop - cache.offset)
        new = positions(cache.offset, cache.offset + T)
        for layer in cache.layers:
            layer.append(new, -new)
        cache.advance(T)


def sight(cache: Cache) -> list[list[int]]:
    """The positions that the next token sees in each layer; its own is the last."""
    at = cache.offset
    found: list[list[int]] = []
    for layer in cache.layers:
        parts = layer.append(positions(at, at + 1), -positions(at, at + 1))
        keys = np.concatenate([array(part.keys)[0, -1, :, 0] for part in parts])
        values = np.concatenate([array(part.values)[0, -1, :, 0] for part in parts])
        assert (keys == -values).all()
        found.append(keys.astype(int).tolist())
    cache.advance(1)
    return found


def expected_sight(at: int, config: ModelConfig = TINY) -> list[list[int]]:
    """What the token at a position should see."""
    window = config.sliding_window
    return [
        list(range(max(0, at - window + 1) if config.is_sliding(n) else 0, at + 1))
        for n in range(config.num_hidden_layers)
    ]


@pytest.mark.parametrize("step", [1, 5, 1000])
@pytest.mark.parametrize("length", [3, 20, 300])
@pytest.mark.parametrize("trimmed", [1, 2, MAX_TRIM])
def test_the_last_tokens_can_be_taken_back(step: int, length: int, trimmed: int) -> None:
    """After a trim the next token sees what it would have seen, however the buffers moved."""
    cache = Cache(TINY)
    fill(cache, length + trimmed, step)
    cache.trim(trimmed)
    assert cache.offset == length
    assert sight(cache) == expected_sight(length)


@pytest.mark.parametrize("position", [1, 7, 8, 40, 255, 300])
def test_a_sequence_goes_on_from_windows(position: int, bits: KVBits) -> None:
    """Windows of a place in a long chunk, and the positions before it, are a cache of that place.

    The first sequence has not changed: another one shares its segment.
    """
    first = Cache(TINY, segment := Segment(TINY.num_hidden_layers // 2, bits))
    fill(first, 300)
    windows = first.windows(position)
    assert windows.position == position
    other = Cache(TINY, Segment(1, bits), [(segment, position)], windows)
    assert other.offset == position
    for at in (position, position + 1):
        assert sight(other) == expected_sight(at)
    assert sight(first) == expected_sight(300)


def test_windows_are_copies() -> None:
    """They keep what they had when the buffers they were taken from are written to."""
    cache = Cache(TINY)
    fill(cache, 30, 1)
    windows = cache.windows()
    before = np.array(windows.keys).tolist()
    fill(cache, 700, 1)
    assert np.array(windows.keys).tolist() == before
    assert windows.nbytes == sum(a.nbytes for a in windows.arrays) > 0


def test_segments_follow_each_other(bits: KVBits) -> None:
    """A sequence sees the shared parts of several segments, then its own, in order."""
    one, two = Segment(2, bits), Segment(2, bits)
    config = replace(TINY, num_hidden_layers=4)
    a = Cache(config, one)
    fill(a, 20)
    b = Cache(config, two, [(one, 12)], a.windows(12))
    fill(b, 30, 3)
    c = Cache(config, Segment(2, bits), [(one, 12), (two, 10)], b.windows(b.offset - 8))
    assert (two.length, c.offset) == (18, 22)
    assert sight(c) == expected_sight(22, config)


def test_a_segment_goes_on_where_it_ended(bits: KVBits) -> None:
    """A cache made of a segment that holds positions appends behind them, without a copy."""
    segment = Segment(TINY.num_hidden_layers // 2, bits)
    segment.reserve(500)
    first = Cache(TINY, segment)
    fill(first, 50)
    size = segment.capacity
    again = Cache(TINY, segment, windows=first.windows())
    assert again.offset == 50
    assert sight(again) == expected_sight(50)
    fill(again, 500, 7)
    assert (segment.capacity, segment.length) == (size, 500)
    assert (segment.growth(12), segment.growth(13)) == (0, 256)


def test_segments_shrink(bits: KVBits) -> None:
    """A segment gives back what lies behind the positions that are still needed."""
    segment = Segment(TINY.num_hidden_layers // 2, bits)
    cache = Cache(TINY, segment)
    fill(cache, 600)
    windows = cache.windows(70)
    segment.shrink(70)
    assert segment.length == 70
    assert segment.capacity == 70
    assert {array.shape[-2] for array in segment.arrays} == {70}
    assert sight(Cache(TINY, segment, windows=windows)) == expected_sight(70)


def test_windows_take_what_is_said() -> None:
    """The sliding layers of a sequence, in bytes, once it is longer than they are."""
    cache = Cache(TINY)
    fill(cache, 400)
    held = [layer for layer in cache.layers if isinstance(layer, SlidingLayer)]
    nbytes = sum(array.nbytes for layer in held for array in layer.arrays)
    assert window_bytes(replace(TINY, num_key_value_heads=HEADS, head_dim=D), mx.float32) == nbytes


def test_layers_alternate() -> None:
    """Even layers slide, odd ones are full, and an empty cache has no arrays."""
    cache = Cache(replace(TINY, num_hidden_layers=5))
    kinds = [type(layer) for layer in cache.layers]
    assert kinds == [SlidingLayer, FullLayer, SlidingLayer, FullLayer, SlidingLayer]
    assert cache.arrays == []
    assert cache.offset == 0


def test_arrays_of_all_layers() -> None:
    """Keys and values of every layer are there to be evaluated."""
    cache = Cache(TINY)
    for layer in cache.layers:
        layer.append(positions(0, 3), positions(0, 3))
    assert len(cache.arrays) == 2 * TINY.num_hidden_layers


def test_batches_and_dtypes() -> None:
    """Buffers take batch size and dtype from what is put into them."""
    shape = (3, 1, 2, D)
    for layer in (FullLayer(), full_layer(8), SlidingLayer(8)):
        [part] = layer.append(mx.ones(shape, mx.bfloat16), mx.ones(shape, mx.bfloat16))
        k, v = part.keys, part.values
        assert (k.shape, k.dtype, v.dtype) == (shape, mx.bfloat16, mx.bfloat16)


def normal(T: int, head_dim: int = 64) -> mx.array:
    """Random numbers (1, HEADS, T, head_dim)."""
    numbers = np.random.default_rng(T).normal(size=(1, HEADS, T, head_dim))
    return mx.array(numbers.astype(np.float32))


@pytest.mark.parametrize("head_dim", [32, 64, 96])
@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16])
def test_eight_bits_are_near(head_dim: int, dtype: mx.Dtype) -> None:
    """No number is further off than the 255th part of what its group spans."""
    x = normal(300, head_dim).astype(dtype)
    layer = full_layer(8)
    layer.append(x[..., :299, :], -x[..., :299, :])
    [part] = layer.append(x[..., 299:, :], -x[..., 299:, :])
    groups = array(x).reshape(1, HEADS, 300, -1, 64 if head_dim == 64 else 32)
    span = groups.max(axis=-1, keepdims=True) - groups.min(axis=-1, keepdims=True)
    # half of it, but MLX has zero and one end of the span exact; bfloat16 rounds the copy, too
    limit = 1.01 * span / 255 + (0 if dtype == mx.float32 else np.abs(groups) * 2**-8)
    for found, expected in ((part.keys, groups), (part.values, -groups)):
        assert found.dtype == dtype
        assert (np.abs(array(found).reshape(groups.shape) - expected) <= limit).all()


def test_copies_are_what_is_stored(bits: KVBits) -> None:
    """A copy of several segments' beginnings has their very bits: nothing is quantized again."""
    parts = [(Segment(2, bits), 5), (Segment(2, bits), 9)]
    for segment, length in parts:
        for layer in segment.layers:
            layer.append(normal(length + 3), -normal(length + 3))
    whole = Segment(2, bits)
    whole.append_copies(parts)
    assert (whole.length, whole.capacity) == (14, 256)
    for found, *pieces in zip(whole.arrays, *(part.arrays for part, _ in parts), strict=True):
        pairs = zip(pieces, parts, strict=True)
        expected = mx.concatenate([piece[..., :n, :] for piece, (_, n) in pairs], axis=-2)
        assert mx.array_equal(found[..., :14, :], expected).item()


@pytest.mark.parametrize("head_dim", [32, 64])
@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16])
def test_bytes_of_a_position(head_dim: int, dtype: mx.Dtype, bits: KVBits) -> None:
    """What a position is said to take is what the buffers take."""
    config = replace(TINY, num_hidden_layers=4, num_key_value_heads=HEADS, head_dim=head_dim)
    segment = Segment(2, bits)
    for layer in segment.layers:
        layer.append(normal(3, head_dim).astype(dtype), normal(3, head_dim).astype(dtype))
    nbytes = sum(a.nbytes for a in segment.arrays)
    assert nbytes == segment.capacity * position_bytes(config, dtype, bits)


def test_bytes_of_a_position_of_gpt_oss() -> None:
    """In 8 bits the 20b's positions take 9/16 of what they do in bfloat16."""
    assert position_bytes(GPT_OSS_20B, mx.bfloat16) == 24_576
    assert position_bytes(GPT_OSS_20B, mx.bfloat16, 8) == 13_824


def test_what_cannot_be_quantized_is_refused() -> None:
    """Heads that MLX has no groups for, and other widths: one line that says what to do."""
    with pytest.raises(UsageError, match="multiple of 32 numbers, not 80: use kv_bits=16"):
        position_bytes(replace(TINY, head_dim=80), mx.float32, 8)
    four: Any = 4
    with pytest.raises(UsageError, match="kv_bits is 16 or 8, not 4"):
        Engine(random_model(), kv_bits=four)


QUANTIZED = replace(TINY, num_hidden_layers=4, head_dim=64, experts_per_token=4)
PROMPT = [(7 * i * i + 3) % TINY.vocab_size for i in range(300)]
GREEDY = SamplingParams(temperature=0, max_tokens=20)


def test_what_is_cached_in_eight_bits_changes_nothing() -> None:
    """Ids are the same from a cold cache and a warm one, in any chunks, alone and in a batch."""
    model = random_model(QUANTIZED)
    with Engine(model, kv_bits=8) as warm, Engine(model, kv_bits=8, prefill_chunk=7) as cold:
        first = list(warm.generate(PROMPT, GREEDY))
        again = [warm.generate([*PROMPT[:n], *PROMPT[:3]], GREEDY) for n in (300, 290, 11, 300)]
        ids = [list(generation) for generation in again]
        assert again[0].stats.cached_tokens >= 299
        assert list(cold.generate(PROMPT, GREEDY)) == first
        expected = [list(cold.generate([*PROMPT[:n], *PROMPT[:3]], GREEDY)) for n in (300, 290, 11)]
    assert ids == [*expected, expected[0]]


def last_logits(model: Model, bits: KVBits) -> NDArray[np.float64]:
    """Of PROMPT's second half, fed one id at a time: (150, V)."""
    cache = Cache(model.config, Segment(2, bits))
    model(mx.array([PROMPT[:150]]), cache)
    return np.concatenate([array(model(mx.array([[i]]), cache))[0] for i in PROMPT[150:]])


def test_eight_bits_are_good_enough() -> None:
    """The bars of `Engine(kv_bits=8)`: mean KL at most 0.001 nats, 99% the same likeliest token.

    All experts are chosen: where a random router is undecided, any rounding sends tokens elsewhere.
    """
    exact, quantized = (last_logits(random_model(QUANTIZED), bits) for bits in (16, 8))
    assert (exact.argmax(axis=-1) == quantized.argmax(axis=-1)).mean() >= 0.99
    p, q = (x - np.log(np.exp(x).sum(axis=-1, keepdims=True)) for x in (exact, quantized))
    kl = (np.exp(p) * (p - q)).sum(axis=-1)
    assert 1e-9 < kl.mean() <= 1e-3  # nothing at all would mean that nothing was quantized
