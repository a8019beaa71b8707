"""Random texts: their differences apply as patches, and what a patch mutates into does no harm."""

from __future__ import annotations

import difflib
import random
from pathlib import Path

import pytest

from gptoss_mlx.tools.apply_patch.tool import ApplyPatchTool
from tools.patches import outcome, tree, wrap

pytestmark = pytest.mark.slow

WORDS = ["", "    ", "return x", "    return x", "x = 1", "}", "# déjà vu", "end"]


def random_edit(rng: random.Random) -> tuple[list[str], list[str]]:
    """Lines, and others made of them; the last says something."""
    old = [rng.choice([*WORDS, f"line {n}"]) for n in range(rng.randrange(1, 40))] + ["last"]
    new = list(old)
    for _ in range(rng.randrange(1, 5)):
        start = rng.randrange(len(new))
        new[start : start + rng.randrange(3)] = [f"new {rng.random()}"] * rng.randrange(1, 3)
    return old, new


def as_patch(old: list[str], new: list[str], context: int) -> str:
    """The trained format of a difference, made of difflib's hunks."""
    diff = list(difflib.unified_diff(old, new, n=context, lineterm=""))[2:]
    return wrap(
        "*** Update File: fuzz", *("@@" if line.startswith("@@") else line for line in diff)
    )


@pytest.mark.parametrize("seed", range(20))
def test_differences_apply(tmp_path: Path, seed: int) -> None:
    """A patch made of two texts turns one into the other; it is undone, too."""
    rng = random.Random(seed)
    tool = ApplyPatchTool(tmp_path)
    for _ in range(20):
        check_difference(tool, tmp_path / "fuzz", rng)


def check_difference(tool: ApplyPatchTool, path: Path, rng: random.Random) -> None:
    """The same of one random text."""
    old_lines, new_lines = random_edit(rng)
    ending, last = rng.choice(["\n", "\r\n"]), rng.choice([True, False])
    old, new = (ending.join(lines) + ending * last for lines in (old_lines, new_lines))
    for context in (3, 6, 50):  # more, as long as it fits in several places
        path.write_bytes(old.encode())
        error = outcome(tool, as_patch(old_lines, new_lines, context))
        if error is None:
            break
        assert "fits at lines" in error
    assert path.read_bytes().decode() == new
    tool.undo()
    assert path.read_bytes().decode() == old


@pytest.mark.parametrize("seed", range(20))
def test_mutated_patches(tmp_path: Path, seed: int) -> None:
    """Whatever a patch has become, it applies, or nothing is changed and a ToolError says why."""
    rng = random.Random(seed)
    root = tmp_path / "project"
    root.mkdir()
    (root / "b.txt").write_text("one\n")
    (root.parent / "outside.txt").write_text("outside\n")
    tool = ApplyPatchTool(root)
    refused = 0
    for _ in range(50):
        old, new = random_edit(rng)
        (root / "fuzz").write_text("\n".join(old))
        before = tree(root)
        mutated = mutate(as_patch(old, new, 3), rng)
        if outcome(tool, mutated) is None:
            assert tree(root) != before
            tool.undo()
        else:
            refused += 1
        assert tree(root) == before
    assert refused > 10
    assert (root.parent / "outside.txt").read_text() == "outside\n"


def mutate(text: str, rng: random.Random) -> str:
    """The text, with lines and characters lost, doubled or swapped."""
    lines = text.split("\n")
    for _ in range(rng.randrange(1, 4)):
        at = rng.randrange(len(lines))
        match rng.randrange(5):
            case 0:
                del lines[at]
                lines = lines or [""]
            case 1:
                lines.insert(at, rng.choice(lines))
            case 2:
                lines[at] = lines[at][1:]
            case 3:
                lines[at] = rng.choice("+-@* \0\\") + lines[at]
            case _:
                lines.insert(at, rng.choice(["*** Delete File: b.txt", "*** Add File: ../x", "@@"]))
    return "\n".join(lines)
