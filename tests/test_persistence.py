"""The prefix cache on disk: warm after a restart, and never wrong."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from checkpoints import TINY
from helpers import random_model

from gptoss_mlx.config import SamplingParams
from gptoss_mlx.engine import Engine
from gptoss_mlx.errors import DiskError
from gptoss_mlx.model import Model
from gptoss_mlx.segment import KVBits
from gptoss_mlx.sequence import Request

pytestmark = pytest.mark.slow

BOUNDARY = 250
SYSTEM = [BOUNDARY, *((3 * i * i + 2) % 200 for i in range(60))]
GREEDY = SamplingParams(temperature=0, max_tokens=12)
LIMIT = 1 << 24


@pytest.fixture(scope="module")
def model() -> Model:
    """A small random model."""
    return random_model(TINY)


def answer(engine: Engine, *messages: Sequence[int]) -> tuple[list[int], int]:
    """The greedy continuation of the system prompt and messages, and how many ids were cached."""
    prompt = [*SYSTEM, *(i for message in messages for i in (BOUNDARY, *message))]
    request = Request(tuple(prompt), GREEDY, boundaries=frozenset({BOUNDARY}))
    generation = engine.submit(request)
    return list(generation), generation.stats.cached_tokens


def run(
    model: Model, folder: Path | None, *conversations: Sequence[Sequence[int]], limit: int = LIMIT
) -> list[tuple[list[int], int]]:
    """One run of the program: each conversation's answer."""
    with Engine(model, prompt_cache=folder, cache_bytes=limit) as engine:
        return [answer(engine, *messages) for messages in conversations]


A, B, C = [1] * 9, [2] * 9, [3] * 9


def test_a_restart_is_warm(model: Model, tmp_path: Path) -> None:
    """A conversation goes on where it ended, another one after the system prompt."""
    [cold, on, other] = run(model, None, [A], [A, B], [C])
    [(first, _)] = run(model, tmp_path, [A])
    assert first == cold[0]
    for _ in range(2):
        [warm, again] = run(model, tmp_path, [A, B], [C])
        assert (warm[0], again[0]) == (on[0], other[0])
        assert warm[1] >= len(SYSTEM) + len(A)
        assert again[1] >= len(SYSTEM)


def test_branches_find_their_parents(model: Model, tmp_path: Path) -> None:
    """Conversations that share a prompt are stored once, and all of them go on."""
    conversations = [[A, B], [A, C], [B], [A, B, C]]
    cold = run(model, None, *conversations)
    run(model, tmp_path, *conversations)
    files = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    warm = run(model, tmp_path, *conversations)
    assert [ids for ids, _ in warm] == [ids for ids, _ in cold]
    longest = [len(SYSTEM) + sum(1 + len(m) for m in messages) - 1 for messages in conversations]
    assert [cached for _, cached in warm] == longest
    assert {path.name for path in tmp_path.iterdir()} >= set(files)  # nothing is written twice


def test_a_longer_branch_replaces_the_shorter(model: Model, tmp_path: Path) -> None:
    """As a conversation goes on there is still one file of it."""
    [(ids, _)] = run(model, tmp_path, [A])
    [first] = tmp_path.iterdir()
    run(model, tmp_path, [[*A, *ids, 7, 7, 7]])
    [second] = tmp_path.iterdir()
    assert second.stat().st_size > 0
    assert second.name != first.name


@pytest.mark.parametrize("damage", ["truncated", "changed", "removed"])
def test_damaged_files(model: Model, tmp_path: Path, damage: str) -> None:
    """What is damaged is computed again, and the answer is right."""
    cold = run(model, None, [A, B], [A, C])
    run(model, tmp_path, [A, B], [A, C])
    for path in sorted(tmp_path.iterdir())[:1]:
        data = bytearray(path.read_bytes())
        if damage == "truncated":
            path.write_bytes(data[: len(data) // 2])
        elif damage == "changed":
            data[-5] ^= 1
            path.write_bytes(data)
        else:
            path.unlink()
    warm = run(model, tmp_path, [A, B], [A, C])
    assert [ids for ids, _ in warm] == [ids for ids, _ in cold]


def test_a_file_removed_while_running(model: Model, tmp_path: Path) -> None:
    """A file that is gone when it is needed is no error."""
    [(cold, _)] = run(model, tmp_path, [A])
    with Engine(model, prompt_cache=tmp_path) as engine:
        for path in tmp_path.iterdir():
            path.unlink()
        assert answer(engine, A) == (cold, 0)


def test_another_models_files(model: Model, tmp_path: Path) -> None:
    """They are not used, and they stay."""
    run(random_model(TINY, "q8"), tmp_path, [A])
    [file] = tmp_path.iterdir()
    [(ids, cached)] = run(model, tmp_path, [A])
    assert (ids, cached) == run(model, None, [A])[0]
    assert file.exists()


def test_the_folder_keeps_to_its_limit(model: Model, tmp_path: Path) -> None:
    """What was used longest ago goes."""
    conversations = [[[n] * 300] for n in range(1, 5)]
    for messages in conversations:
        run(model, tmp_path, messages)
        for path in tmp_path.iterdir():
            os.utime(path, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns - 10**9))
    size = sum(path.stat().st_size for path in tmp_path.iterdir())
    limit = size * 3 // 4
    run(model, tmp_path, conversations[3], limit=limit)
    assert 0 < sum(path.stat().st_size for path in tmp_path.iterdir()) <= limit
    assert run(model, tmp_path, conversations[3])[0][1] > 300


def test_a_small_budget_evicts_what_was_loaded(model: Model, tmp_path: Path) -> None:
    """Files that together do not fit into memory are loaded by turns."""
    conversations = [[[n] * 300] for n in range(1, 5)]
    cold = run(model, tmp_path, *conversations)
    with Engine(model, prompt_cache=tmp_path, cache_bytes=450_000) as engine:
        for messages, (ids, _) in zip(conversations * 2, cold * 2, strict=True):
            assert answer(engine, *messages)[0] == ids
            assert engine.prefix.nbytes <= 450_000
        assert engine.prefix.stats.evictions > 0


def test_a_folder_that_cannot_be_written(model: Model, tmp_path: Path) -> None:
    """One line says so before anything is computed."""
    (tmp_path / "file").write_text("")
    with pytest.raises(DiskError, match="no prompts can be kept there"):
        Engine(model, prompt_cache=tmp_path / "file")


@pytest.mark.parametrize(("first", "second"), [(8, 16), (16, 8)])
def test_other_kv_bits(model: Model, tmp_path: Path, first: KVBits, second: KVBits) -> None:
    """Keys of the other width are not used."""
    with Engine(model, prompt_cache=tmp_path, kv_bits=first) as engine:
        answer(engine, A)
    with Engine(model, prompt_cache=tmp_path, kv_bits=second) as engine:
        assert answer(engine, A)[1] == 0


def test_the_same_prompt_is_kept_once(model: Model, tmp_path: Path) -> None:
    """However often it is asked, and also when another process has removed it meanwhile."""
    expected = run(model, None, [A])[0][0]
    for _ in range(3):
        assert run(model, tmp_path, [A])[0][0] == expected
        assert len(list(tmp_path.iterdir())) == 1
    with Engine(model, prompt_cache=tmp_path) as engine:
        answer(engine, A)
        next(tmp_path.iterdir()).unlink()
    [file] = tmp_path.iterdir()
    assert file.stat().st_size > 1000
    assert file.stat().st_mode & 0o777 == 0o600


def test_what_a_killed_process_left(model: Model, tmp_path: Path) -> None:
    """A file that was not whole is never read, and goes a day later."""
    leftover = tmp_path / ".writing-abc"
    leftover.mkdir()
    (leftover / "0123.safetensors").write_bytes(b"half")
    run(model, tmp_path, [A])
    assert leftover.exists()
    os.utime(leftover, (0, 0))
    run(model, tmp_path, [B])
    assert not leftover.exists()
