"""Measure the demo checkpoint: `python -m gptoss_mlx.demo.evaluate [--split dev] [--n 50]`.

Real generation, through all that a user's prompt goes through: unpack, convert, load, prefill,
decode, parse. Prints for each skill how many completions are valid harmony, how many end in exactly
the expected answer or call, and how many reason exactly as expected. The test split is for the last
checkpoint only: whoever tunes on it has no test left.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import astuple, dataclass
from pathlib import Path

from gptoss_mlx.config import SamplingParams
from gptoss_mlx.convert import convert
from gptoss_mlx.demo import dialogues, spelling, unpack
from gptoss_mlx.demo.dialogues import Dialogue
from gptoss_mlx.engine import Engine
from gptoss_mlx.harmony import Message, parse
from gptoss_mlx.model import load_model
from gptoss_mlx.tokenizer import STOP_TOKENS, Tokenizer, load_tokenizer

LONGEST = 120  # ids; the longest expected completion has about half


@dataclass(frozen=True)
class Score:
    """What is right about one completion."""

    valid: bool  # two complete messages, the second an answer or a call
    answer: bool
    analysis: bool


def load_engine(original: Path | None = None) -> Engine:
    """The packed demo, or another original checkpoint, as `gptoss-mlx` would run it."""
    with tempfile.TemporaryDirectory() as folder:
        source = original or unpack(Path(folder) / "original")
        report = convert(source, Path(folder) / "mlx")
        return Engine(load_model(report.destination))


def complete(engine: Engine, prompt: list[int], temperature: float = 0.0) -> list[int]:
    """The ids that follow a prompt, the stop id among them."""
    params = SamplingParams(temperature=temperature, seed=0, max_tokens=LONGEST)
    return list(engine.generate(prompt, params, stop=STOP_TOKENS))


def score(ids: list[int], expected: tuple[tuple[str, ...], ...], tokenizer: Tokenizer) -> Score:
    """Compare a completion with the (channel, recipient, text) that are expected."""
    said = [_essence(message) for message in parse(ids, tokenizer)]
    shape = [(channel, recipient) for channel, recipient, _ in said]
    valid = ids[-1] in STOP_TOKENS and shape[:1] == [("analysis", "")] and len(said) == 2
    return Score(
        valid=valid and ("final" in shape[1] or shape[1][1].startswith("functions.")),
        answer=said[-1:] == [expected[-1]],
        analysis=said[:-1] == list(expected[:-1]),
    )


def expected_essence(dialogue: Dialogue) -> tuple[tuple[str, ...], ...]:
    """The (channel, recipient, text) of what a dialogue expects."""
    return tuple(
        (message.channel or "", message.recipient or "", spelling.text_of(message))
        for message in dialogue.turn.expected
    )


def _essence(message: Message) -> tuple[str, ...]:
    return (message.channel or "", message.recipient or "", message.content)


def measure(
    engine: Engine, tokenizer: Tokenizer, examples: list[Dialogue], temperature: float, show: int
) -> list[Score]:
    """The scores of one skill; prints the first `show` wrong answers."""
    scores: list[Score] = []
    for dialogue in examples:
        scene, rest = spelling.prompt_ids(tokenizer, dialogue)
        ids = complete(engine, scene + rest, temperature)
        scores.append(score(ids, expected_essence(dialogue), tokenizer))
        if not scores[-1].answer and show > 0:
            show -= 1
            print(f"  asked {tokenizer.decode(rest)[-150:]!r}\n  said  {tokenizer.decode(ids)!r}")
    return scores


def row(name: str, scores: list[Score]) -> str:
    """A line of the table."""
    if not scores:
        return f"| {name:10} |    0 |      – |      – |      – |"
    columns = zip(*(astuple(score) for score in scores), strict=True)
    shares = " | ".join(f"{sum(column) / len(scores):6.1%}" for column in columns)
    return f"| {name:10} | {len(scores):4} | {shares} |"


def main() -> None:
    """Measure every skill."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--split", choices=dialogues.SPLITS, default="dev")
    parser.add_argument("--n", type=int, default=50, help="dialogues of each skill")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--original", type=Path, help="another checkpoint than the packed one")
    parser.add_argument("--show", type=int, default=0, help="wrong answers to print a skill")
    arguments = parser.parse_args()
    tokenizer, engine = load_tokenizer(), load_engine(arguments.original)
    print("| skill      |    n |  valid | answer | analysis |\n| --- | --- | --- | --- | --- |")
    everything: list[Score] = []
    for skill in dialogues.SKILLS:
        examples = dialogues.held_out(arguments.split, skill, arguments.n, arguments.seed)
        scores = measure(engine, tokenizer, examples, arguments.temperature, arguments.show)
        everything += scores
        print(row(skill, scores), flush=True)
    print(row("all", everything))


if __name__ == "__main__":
    main()
