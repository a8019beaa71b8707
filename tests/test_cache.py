"""The cache: what full and sliding layers keep, over buffer growth and at the window's edges."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest
from checkpoints import TINY
from helpers import array

from gptoss_mlx.cache import MAX_TRIM, Cache, FullLayer, LayerCache, Segment, SlidingLayer
from gptoss_mlx.config import ModelConfig

HEADS, D = 2, 4


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
        [(k, v)] = layer.append(new, -new)
        assert k.shape == v.shape == (1, HEADS, k.shape[2], D)
        ks, vs = (np.array(x)[0, -1, :, -1].astype(int).tolist() for x in (k, -v))
        found.append((ks, vs))
        start += length
    return found


@pytest.mark.parametrize(
    "lengths",
    [[1], [1] * 5, [255, 1, 1], [256, 1], [257], [200, 200, 200], [600, 1], [1, 1000], [256, 256]],
)
def test_full_layers_keep_everything(lengths: list[int]) -> None:
    """Every append returns all positions so far, in order, however the buffer had to grow."""
    layer = FullLayer()
    for end, (k, v) in zip(np.cumsum(lengths), held(layer, lengths), strict=True):
        assert k == v == list(range(end))


@pytest.mark.parametrize(("tokens", "capacity"), [(1, 256), (256, 256), (257, 512), (1025, 1280)])
def test_full_layers_grow_in_steps(tokens: int, capacity: int) -> None:
    """Buffers are a multiple of 256 positions, and no longer than they must be."""
    layer = FullLayer()
    held(layer, [1] if tokens == 1 else [1, tokens - 1])
    assert [a.shape for a in layer.arrays] == [(1, HEADS, capacity, D)] * 2


def test_appending_leaves_earlier_results_alone() -> None:
    """What an append returned does not change when later ones write into the same buffer."""
    layer = FullLayer()
    [(first, _)] = layer.append(positions(0, 3), positions(0, 3))
    layer.append(positions(3, 9), positions(3, 9))
    assert np.array(first)[0, 0, :, 0].tolist() == [0, 1, 2]


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
def test_a_sequence_goes_on_from_windows(position: int) -> None:
    """Windows of a place in a long chunk, and the positions before it, are a cache of that place.

    The first sequence has not changed: another one shares its segment.
    """
    first = Cache(TINY, segment := Segment(TINY.num_hidden_layers // 2))
    fill(first, 300)
    windows = first.windows(position)
    assert windows.position == position
    other = Cache(TINY, shared=[(segment, position)], windows=windows)
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


def test_segments_follow_each_other() -> None:
    """A sequence sees the shared parts of several segments, then its own, in order."""
    one, two = Segment(2), Segment(2)
    config = replace(TINY, num_hidden_layers=4)
    a = Cache(config, one)
    fill(a, 20)
    b = Cache(config, two, [(one, 12)], a.windows(12))
    fill(b, 30, 3)
    c = Cache(config, None, [(one, 12), (two, 10)], b.windows(b.offset - 8))
    assert (two.length, c.offset) == (18, 22)
    assert sight(c) == expected_sight(22, config)


def test_a_segment_goes_on_where_it_ended() -> None:
    """A cache made of a segment that holds positions appends behind them, without a copy."""
    segment = Segment(TINY.num_hidden_layers // 2)
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


def test_segments_shrink() -> None:
    """A segment gives back what lies behind the positions that are still needed."""
    segment = Segment(TINY.num_hidden_layers // 2)
    cache = Cache(TINY, segment)
    fill(cache, 600)
    windows = cache.windows(70)
    segment.shrink(70)
    assert segment.length == 70
    assert segment.capacity == 70
    assert sight(Cache(TINY, segment, windows=windows)) == expected_sight(70)


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
    for layer in (FullLayer(), SlidingLayer(8)):
        [(k, v)] = layer.append(
            mx.ones((3, 1, 2, 4), mx.bfloat16), mx.ones((3, 1, 2, 4), mx.bfloat16)
        )
        assert (k.shape, k.dtype, v.dtype) == ((3, 1, 2, 4), mx.bfloat16, mx.bfloat16)
