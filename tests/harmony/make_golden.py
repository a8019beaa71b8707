"""Records what the parser makes of some completions: run it, and read the difference in git.

    python -m tests.harmony.make_golden

Each is written as text with markers, or as ids where no text has them, and stored as ids.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gptoss_mlx.harmony import Delta, Message
from gptoss_mlx.tokenizer import END, Tokenizer, load_tokenizer

from .completions import parse_events

__all__ = ["FOLDER", "events_of", "to_json"]

FOLDER = Path(__file__).parent / "golden"
COMPLETIONS: dict[str, str] = {
    "answer": (
        "<|channel|>analysis<|message|>A greeting.<|end|>"
        "<|start|>assistant<|channel|>final<|message|>Hello, wörld 🫠!<|return|>"
    ),
    "preamble-and-call": (
        "<|channel|>analysis<|message|>Need the weather.<|end|>"
        "<|start|>assistant<|channel|>commentary<|message|>I look it up.<|end|>"
        "<|start|>assistant<|channel|>commentary to=functions.get_weather <|constrain|>json"
        '<|message|>{"city": "São Paulo"}<|call|>'
    ),
    "call-on-analysis": (
        "<|channel|>analysis<|message|>Compute.<|end|>"
        "<|start|>assistant to=python<|channel|>analysis code<|message|>print(6 * 7)\n<|call|>"
    ),
    "call-without-stop": "<|channel|>commentary to=functions.f json<|message|>{}",
    "no-message-marker": "<|channel|>final The answer is 42.<|return|>",
    "bare-text": "The answer is 42.<|end|>",
    "glued-channel": (
        "<|channel|>analysis<|message|>Done.<|end|>assistantfinal<|message|>It is 42.<|return|>"
    ),
    "stray-markers": (
        "<|channel|>final<|message|>one <|constrain|>two <|message|>three<|end|><|end|><|return|>"
    ),
    "hallucinated-tool": (
        "<|channel|>commentary to=functions.f<|message|>{}<|end|>"
        "<|start|>functions.f to=assistant<|channel|>commentary<|message|>7<|end|>"
        "<|start|>assistant<|channel|>final<|message|>Seven.<|return|>"
    ),
}


def cut_character(tokenizer: Tokenizer) -> list[int]:
    """A message that ends after two of the four bytes of a character, and one more."""
    start = tokenizer.encode_with_special("<|channel|>analysis<|message|>ab")
    rest = "<|start|>assistant<|channel|>final<|message|>ok<|return|>"
    return [*start, tokenizer.encode("🫠")[0], END, *tokenizer.encode_with_special(rest)]


def events_of(ids: Sequence[int], tokenizer: Tokenizer) -> list[dict[str, Any]]:
    """The same, as they are stored."""
    return [to_json(event) for event in parse_events(ids, tokenizer)]


def to_json(event: Delta | Message) -> dict[str, Any]:
    """A delta or a message as a JSON object, without what is None; most deltas are assistant's."""
    fields = {key: value for key, value in asdict(event).items() if value is not None}
    if isinstance(event, Delta) and event.role == "assistant":
        del fields["role"]
    if "ids" in fields:
        fields["ids"] = list(fields["ids"])
    return {"type": type(event).__name__.lower(), **fields}


def main() -> None:
    """Write one file a completion."""
    tokenizer = load_tokenizer()
    completions = {name: tokenizer.encode_with_special(t) for name, t in COMPLETIONS.items()}
    completions["cut-character"] = cut_character(tokenizer)
    FOLDER.mkdir(exist_ok=True)
    for name, ids in completions.items():
        (FOLDER / f"{name}.json").write_text(_record(ids, tokenizer), encoding="utf-8")


def _record(ids: Sequence[int], tokenizer: Tokenizer) -> str:
    """A JSON object with one event a line."""
    events = [json.dumps(e, ensure_ascii=False) for e in events_of(ids, tokenizer)]
    text = json.dumps(tokenizer.decode(ids), ensure_ascii=False)
    lines = ",\n    ".join(events)
    return f'{{\n  "text": {text},\n  "ids": {list(ids)},\n  "events": [\n    {lines}\n  ]\n}}\n'


if __name__ == "__main__":
    main()
