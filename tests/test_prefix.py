"""The prefix cache: what it gives back is what was put in, however prompts branch and end."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import count

import mlx.core as mx
import pytest
from checkpoints import TINY
from helpers import array

from gptoss_mlx.cache import MAX_TRIM, Cache
from gptoss_mlx.prefix import Lease, PrefixCache
from gptoss_mlx.segment import KVBits
from gptoss_mlx.sequence import common_prefix

CONFIG = replace(TINY, num_hidden_layers=4, num_key_value_heads=2)
PLENTY = 1 << 30


@pytest.fixture(params=[16, 8])
def bits(request: pytest.FixtureRequest) -> KVBits:
    """Of the full layers' numbers. Heads whose numbers are all the same are exact in 8, too."""
    return request.param


# keys are marked by the whole prefix they depend on, as a transformer's are
Mark = float


@dataclass
class Running:
    """A running sequence: its lease, its tokens, and what the cache was given for each."""

    lease: Lease
    tokens: list[int]
    marks: list[Mark] = field(default_factory=list[float])

    @property
    def cache(self) -> Cache:
        """The lease's."""
        return self.lease.cache


def marks_of(tokens: Sequence[int]) -> list[Mark]:
    """A number for each position that says which tokens lead there."""
    return [float(hash(tuple(tokens[: n + 1])) % 8_388_593) for n in range(len(tokens))]


def append(sequence: Running, upto: int) -> None:
    """Feed tokens to the cache up to a position, as the model would."""
    new = marks_of(sequence.tokens)[sequence.cache.offset : upto]
    if not new:
        return
    k = mx.broadcast_to(mx.array(new)[None, None, :, None], (1, 2, len(new), CONFIG.head_dim))
    for layer in sequence.cache.layers:
        layer.append(k, -k)
    sequence.cache.advance(len(new))


def new_zeros() -> mx.array:
    """Keys or values of one token."""
    return mx.zeros((1, 2, 1, CONFIG.head_dim))


def check(sequence: Running) -> None:
    """Every layer holds what the sequence's own tokens give, the sliding ones the window's."""
    at = sequence.cache.offset
    append(sequence, at + 1)
    expected = marks_of(sequence.tokens)[: at + 1]
    probe = new_zeros()
    for n, layer in enumerate(sequence.cache.layers):
        parts = layer.append(probe, probe)
        keys = [k for part in parts for k in array(part.keys)[0, -1, :, 0].tolist()][:-1]
        values = [v for part in parts for v in array(part.values)[0, 0, :, 3].tolist()][:-1]
        kept = expected[-(CONFIG.sliding_window - 1) :] if CONFIG.is_sliding(n) else expected
        assert keys == kept
        assert values == [-k for k in kept]
        layer.trim(1)


def begin(tree: PrefixCache, prompt: Sequence[int], places: Sequence[int] = ()) -> Running:
    """Prefill a prompt, in one chunk."""
    sequence = Running(tree.lease(prompt), list(prompt))
    append(sequence, len(prompt))
    sequence.lease.commit(prompt, [p for p in places if p > sequence.lease.reused])
    return sequence


def end(sequence: Running) -> None:
    """Release all that was fed."""
    sequence.lease.release(sequence.tokens)


def prompt(*parts: int) -> list[int]:
    """So many tokens of each kind, one after the other."""
    return [1000 * kind + n for kind, length in enumerate(parts, start=1) for n in range(length)]


def test_the_common_prefix() -> None:
    """How many ids two lists begin with together."""
    assert common_prefix([1, 2, 3], [1, 2, 4]) == 2
    assert common_prefix([1, 2], [1, 2, 4]) == common_prefix([1, 2, 4], [1, 2]) == 2
    assert common_prefix([], [1]) == common_prefix([2], [1]) == 0


def test_a_conversation_goes_on_where_it_ended(bits: KVBits) -> None:
    """The next prompt reuses all that was released, in the same segment."""
    tree = PrefixCache(CONFIG, PLENTY, mx.float32, bits)
    first = begin(tree, prompt(40))
    end(first)
    second = begin(tree, prompt(40, 20))
    assert second.lease.reused == 40
    second.tokens += [7, 7]
    check(second)
    end(second)
    assert tree.stats.reused_tokens == 40
    assert len(second.cache.layers[1].append(new_zeros(), new_zeros())) == 1  # segment, no parts


@pytest.mark.parametrize("place", [1, 5, 20, 39])
def test_a_prompt_goes_back_to_the_nearest_place(place: int, bits: KVBits) -> None:
    """What differs later reuses the prefix up to a place, and both stay right."""
    tree = PrefixCache(CONFIG, PLENTY, mx.float32, bits)
    first = begin(tree, prompt(40), [place])
    other = Running(tree.lease([*prompt(40)[:39], 5, 6]), [*prompt(40)[:39], 5, 6, 7])
    assert other.lease.reused == place
    append(other, 40)
    check(other)
    first.tokens += [8, 9]
    check(first)
    end(first)
    end(other)
    assert tree.reusable([*prompt(40), 8, 9, 10]) == 41
    assert tree.reusable([*prompt(40)[:39], 5, 6, 7, 8]) == 41


def test_at_least_one_token_is_left(bits: KVBits) -> None:
    """The same prompt again: its last token is computed anew, since its logits are wanted."""
    tree = PrefixCache(CONFIG, PLENTY, mx.float32, bits)
    end(begin(tree, prompt(40), [39]))
    assert tree.reusable(prompt(40)) == 39
    assert tree.reusable(prompt(41)) == 40


def test_sequences_share_a_prefix_while_it_grows(bits: KVBits) -> None:
    """While one is still running, others branch off its prompt and its answer."""
    tree = PrefixCache(CONFIG, PLENTY, mx.float32, bits)
    first = begin(tree, prompt(300, 10), [300])
    size = tree.nbytes
    others = [begin(tree, [*prompt(300), n, n, n]) for n in range(4)]
    assert [other.lease.reused for other in others] == [300] * 4
    assert tree.nbytes < 3 * size  # not six: 300 tokens are there once
    for n, sequence in enumerate([first, *others]):
        sequence.tokens += [n] * 3
        check(sequence)
    for sequence in [*others, first]:
        end(sequence)
    assert tree.reusable([*others[2].tokens, 1]) == 304


def test_what_was_not_committed_is_lost(bits: KVBits) -> None:
    """A sequence that is cancelled in its prompt leaves what was committed before."""
    tree = PrefixCache(CONFIG, PLENTY, mx.float32, bits)
    sequence = Running(tree.lease(prompt(60)), prompt(60))
    append(sequence, 30)
    sequence.lease.commit(sequence.tokens, [12, 30])
    append(sequence, 50)
    sequence.lease.release()
    assert tree.reusable(prompt(60)) == 30
    again = begin(tree, prompt(60))
    again.tokens.append(3)
    check(again)


def test_a_failed_sequence_leaves_nothing_of_its_own(bits: KVBits) -> None:
    """What it wrote is forgotten, what others gave or took is not."""
    tree = PrefixCache(CONFIG, PLENTY, mx.float32, bits)
    end(begin(tree, prompt(30)))
    failing = begin(tree, prompt(30, 20, 20), [50])
    sharing = begin(tree, [*prompt(30, 20), 4, 5])
    append(failing, 70)
    failing.lease.discard()
    assert tree.reusable(prompt(30, 20, 20)) == 50  # which `sharing` uses
    sharing.tokens.append(4)
    check(sharing)
    alone = begin(tree, prompt(1, 30), [20])
    alone.lease.discard()
    assert tree.reusable(prompt(1, 30)) == 0


@pytest.mark.parametrize("over", [1, MAX_TRIM])
def test_a_sequence_may_have_run_ahead(over: int, bits: KVBits) -> None:
    """The last tokens fed need not be worth keeping; the next prompt overwrites them."""
    tree = PrefixCache(CONFIG, PLENTY, mx.float32, bits)
    sequence = begin(tree, prompt(30, over))
    sequence.lease.release(prompt(30))
    following = begin(tree, prompt(30, 0, 9))
    assert following.lease.reused == 30
    following.tokens.append(3)
    check(following)


def test_a_shared_sequence_may_have_run_ahead(bits: KVBits) -> None:
    """Even if it was made to share what it had run ahead with."""
    tree = PrefixCache(CONFIG, PLENTY, mx.float32, bits)
    sequence = begin(tree, prompt(20, 10), [20])
    sequence.tokens.append(99)  # fed, but not yet known to be the last
    append(sequence, 31)
    other = begin(tree, [*prompt(20), 1, 2])
    sequence.lease.release(prompt(20, 10))
    following = begin(tree, prompt(20, 10, 5))
    assert following.lease.reused == 30
    for s in (other, following):
        s.tokens.append(3)
        check(s)


def test_many_branches_are_joined(bits: KVBits) -> None:
    """A sequence of many short parts gets a segment of its own, which holds a copy."""
    tree = PrefixCache(CONFIG, PLENTY, mx.float32, bits)
    tokens = prompt(10)
    parts: list[int] = []
    end(begin(tree, tokens))
    for n in range(12):
        tokens = [*tokens[:-1], n, n, n]
        sequence = begin(tree, tokens, [len(tokens) - 1])
        assert n == 0 or sequence.lease.reused >= len(tokens) - 3
        sequence.tokens.append(5)
        check(sequence)
        parts.append(len(sequence.cache.layers[1].append(new_zeros(), new_zeros())))
        sequence.cache.layers[1].trim(1)
        end(sequence)
    assert parts[:9] == list(range(1, 10))
    assert parts[9] == 1


def test_the_least_recently_used_is_evicted_first(bits: KVBits) -> None:
    """A small budget keeps what was used last, and is kept to."""
    tree = PrefixCache(CONFIG, PLENTY, mx.float32, bits)
    prompts = [[n, *prompt(300)] for n in range(4)]
    for p in prompts:
        end(begin(tree, p))
    one = tree.nbytes // 4
    end(begin(tree, [*prompts[0], 1]))
    tree.budget = int(2.5 * one)
    assert tree.make_room()
    assert tree.nbytes <= tree.budget
    assert [tree.reusable([*p, 1]) > 0 for p in prompts] == [True, False, False, True]
    assert tree.make_room(one)
    assert [tree.reusable([*p, 1]) > 0 for p in prompts] == [True, False, False, False]
    assert tree.stats.evictions == 3


def test_running_sequences_are_not_evicted(bits: KVBits) -> None:
    """When only they are left there is no room; they go on, and are right."""
    tree = PrefixCache(CONFIG, 1, mx.float32, bits)
    sequence = begin(tree, prompt(40), [10, 20])
    assert not tree.make_room()
    sequence.tokens.append(3)
    check(sequence)
    end(sequence)
    assert tree.make_room(1)
    assert (tree.nbytes, tree.num_places) == (0, 0)


def test_an_evicted_end_gives_its_memory_back(bits: KVBits) -> None:
    """What lies behind the last place that is left is not kept."""
    tree = PrefixCache(CONFIG, PLENTY, mx.float32, bits)
    end(begin(tree, prompt(2000), [100]))
    end(begin(tree, prompt(100, 1)))
    size = tree.nbytes
    tree.budget = size // 2
    assert tree.make_room()
    assert tree.reusable(prompt(2000)) == 100


def test_clear(bits: KVBits) -> None:
    """All that nobody uses goes; what is in use goes when it is released for good."""
    tree = PrefixCache(CONFIG, PLENTY, mx.float32, bits)
    end(begin(tree, prompt(40)))
    running = begin(tree, prompt(40, 5), [42])
    tree.clear()
    assert (tree.num_places, tree.reusable(prompt(40, 5))) == (0, 0)
    running.tokens.append(1)
    check(running)
    running.lease.release()
    assert tree.nbytes == 0


@pytest.mark.parametrize("seed", range(8))
def test_random_lives(seed: int, bits: KVBits) -> None:
    """Sequences begin, grow, share, end, fail and are evicted at random: never a wrong key.

    At last nothing is left.
    """
    draw = random.Random(seed)
    tree = PrefixCache(CONFIG, PLENTY, mx.float32, bits)
    tree.budget = draw.choice([PLENTY, 1600 * tree.position_bytes, 500 * tree.position_bytes])
    alive: list[Running] = []
    history: list[list[int]] = [[]]
    fresh = count(10)
    for _ in range(150):
        action = draw.random()
        if action < 0.35 and len(alive) < 5:
            base = draw.choice(history)
            tokens = base[: draw.randint(0, len(base))]
            tokens = [
                *tokens,
                *(draw.choice([1, 2, next(fresh)]) for _ in range(draw.randint(1, 30))),
            ]
            places = draw.sample(range(1, len(tokens) + 1), k=min(3, len(tokens)))
            alive.append(begin(tree, tokens, places))
        elif alive:
            sequence = draw.choice(alive)
            if action < 0.75:
                sequence.tokens += [
                    draw.choice([1, 2, next(fresh)]) for _ in range(draw.randint(1, 9))
                ]
                check(sequence)
            else:
                alive.remove(sequence)
                kept = sequence.cache.offset - draw.randint(0, 2)
                history.append(sequence.tokens[: max(kept, 0)])
                if action < 0.9 and kept > sequence.lease.reused:
                    sequence.lease.release(sequence.tokens[:kept])
                elif action < 0.95:
                    sequence.lease.release()
                else:
                    sequence.lease.discard()
        tree.make_room()
    for sequence in alive:
        sequence.lease.release()
    tree.clear()
    assert (tree.nbytes, tree.num_places) == (0, 0)


def test_a_prompt_does_not_evict_its_own_prefix() -> None:
    """What it can reuse counts as used before room is made for the rest."""
    tree = PrefixCache(CONFIG, PLENTY, mx.float32)
    end(begin(tree, prompt(500)))
    end(begin(tree, prompt(0, 500)))
    tree.budget = tree.nbytes + 100 * tree.position_bytes
    assert tree.make_room_for(prompt(500, 0, 20))
    assert tree.reusable(prompt(500, 0, 20)) == 500
    assert tree.reusable(prompt(0, 500, 1)) == 0


def test_a_joined_copy_needs_room() -> None:
    """Without it, a sequence of many parts goes on with all of them."""
    tree = PrefixCache(CONFIG, PLENTY, mx.float32)
    tokens = prompt(300)
    end(begin(tree, tokens))
    for n in range(12):
        tokens = [*tokens[:-1], n, n, n]
        tree.budget = tree.nbytes + 300 * tree.position_bytes  # a copy takes 512
        sequence = begin(tree, tokens, [len(tokens) - 1])
        assert n == 0 or tree.nbytes <= tree.budget  # the first begins anew
        sequence.tokens.append(5)
        check(sequence)
        end(sequence)


def test_twins_are_dropped() -> None:
    """The same prompt with the same end is kept once; a longer one is not a twin."""
    tree = PrefixCache(CONFIG, PLENTY, mx.float32)
    for _ in range(4):
        end(begin(tree, prompt(60), [59]))
        assert tree.num_places == 2
    size = tree.nbytes
    end(begin(tree, prompt(60), [59]))
    assert tree.nbytes == size
    end(begin(tree, prompt(58, 9)))
    assert tree.reusable(prompt(58, 9, 1)) == 67
    assert tree.reusable(prompt(61)) == 60
