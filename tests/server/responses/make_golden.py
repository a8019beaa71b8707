"""Records the events of some responses: run it, and read the difference in git.

    python -m tests.server.responses.make_golden

One file a scene, one event a line.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

if __name__ == "__main__":  # as pytest has it
    sys.path.insert(0, str(Path(__file__).parents[2]))

from gptoss_mlx.server.responses.reading import Context
from gptoss_mlx.server.sealing import Seal
from gptoss_mlx.tokenizer import Tokenizer, load_tokenizer

from .scenes import SCENES, Run, Scene, run

__all__ = ["FOLDER", "golden_run"]

FOLDER = Path(__file__).parent / "golden"


def golden_run(scene: Scene, tokenizer: Tokenizer) -> Run:
    """A scene, played; what is sealed is sealed by the same key each time."""
    context = Context(builtins=("browser", "python"), seal=Seal(b"golden"))
    return run(scene, tokenizer, context)


def main() -> None:
    """Write one file a scene."""
    tokenizer = load_tokenizer()
    FOLDER.mkdir(exist_ok=True)
    for name, scene in SCENES.items():
        wires = golden_run(scene, tokenizer).wires
        lines = [json.dumps(data, ensure_ascii=False) for _, data in wires]
        text = "[\n" + ",\n".join(lines) + "\n]\n"
        (FOLDER / f"{name}.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
