"""Writes golden.json: run it when the chunks are meant to change, and read the difference.

PYTHONPATH=tests python -m server.chat_completions.make_golden
"""

from __future__ import annotations

import json
from pathlib import Path

from gptoss_mlx.tokenizer import load_tokenizer

from .streams import CASES, case

GOLDEN = Path(__file__).with_name("golden.json")

if __name__ == "__main__":
    cases = {name: case(name, load_tokenizer()) for name in CASES}
    GOLDEN.write_text(json.dumps(cases, indent=1) + "\n")
