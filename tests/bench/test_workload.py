"""What is measured, and the way it takes to another process."""

from __future__ import annotations

import itertools

from gptoss_mlx.bench.workload import Workload

WORKLOAD = Workload("/a folder", 1000, (8, 40), (1, 3), 5, "disk", 8, seed=7)


def test_it_survives_the_way_to_a_process() -> None:
    """As a line of JSON."""
    text = WORKLOAD.to_json()
    assert "\n" not in text
    assert Workload.from_json(text) == WORKLOAD


def test_ids_are_repeatable_ordinary_and_different() -> None:
    """The same for the same purpose; others in every prompt, so that nothing is cached."""
    prompt = WORKLOAD.ids(500, "prompt")
    assert prompt == WORKLOAD.ids(500, "prompt")
    assert 0 <= min(prompt) < max(prompt) < 1000
    others = [prompt[:8], WORKLOAD.ids(8, "turn"), *WORKLOAD.prompts(1), *WORKLOAD.prompts(3)]
    assert [len(ids) for ids in others] == [8] * 6
    assert all(a[:2] != b[:2] for a, b in itertools.combinations(others, 2))


def test_the_longest_sequence() -> None:
    """Of a conversation, or of a batch, whose first sequences wait for the others."""
    assert WORKLOAD.longest == 8 + 5 + 3 * 64
    assert Workload("", 9, (400,), (), 5).longest == 400 + 5 + 32 + 1
