"""Records the events of some messages: run it, and read the difference in git.

    python -m tests.server.messages.make_golden

One file a scene, one event a line.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

if __name__ == "__main__":  # as pytest has it
    sys.path.insert(0, str(Path(__file__).parents[2]))

from gptoss_mlx.tokenizer import load_tokenizer

from .scenes import SCENES, run

__all__ = ["FOLDER"]

FOLDER = Path(__file__).parent / "golden"


def main() -> None:
    """Write one file a scene."""
    tokenizer = load_tokenizer()
    FOLDER.mkdir(exist_ok=True)
    for name, scene in SCENES.items():
        lines = [json.dumps(data, ensure_ascii=False) for data in run(scene, tokenizer).data]
        text = "[\n" + ",\n".join(lines) + "\n]\n"
        (FOLDER / f"{name}.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
