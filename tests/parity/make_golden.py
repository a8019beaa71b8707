"""Write the golden files; the references must be installed.

python -m tests.parity.make_golden
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from .checkpoints import CASES, ROUTING_MARGIN, write_checkpoint, write_huggingface_twin
from .golden import sample, save_golden
from .references import openai_logits, openai_routing_margin, transformers_logits


def main() -> None:
    """Run both references on every case."""
    for case in CASES.values():
        with tempfile.TemporaryDirectory() as folder:
            checkpoint = write_checkpoint(Path(folder), case)
            margin = openai_routing_margin(checkpoint.openai, case.ids)
            if margin < ROUTING_MARGIN:
                raise SystemExit(f"{case.name}: a route hangs on {margin:.1g}; take another seed")
            twin = Path(folder) / "huggingface"
            write_huggingface_twin(checkpoint.openai, twin, case.config)
            expected = {
                "openai": sample(openai_logits(checkpoint.openai, case.ids)),
                "transformers": sample(transformers_logits(twin, case.ids)),
            }
            save_golden(checkpoint, expected)


if __name__ == "__main__":
    main()
