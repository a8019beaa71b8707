"""Records what `gptoss-mlx fit --memory N` prints for the memory sizes that Macs are sold with.

python -m fit.make_golden, in the folder tests; then read what has changed.
"""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

from gptoss_mlx.cli import run

__all__ = ["FOLDER", "GIGABYTES", "printed"]

FOLDER = Path(__file__).parent / "golden"
GIGABYTES = (16, 24, 32, 36, 48, 64, 96, 128)


def printed(gigabytes: int) -> str:
    """The tables of both models, and what follows them."""
    with contextlib.redirect_stdout(io.StringIO()) as output:
        run(["fit", "--memory", f"{gigabytes}GB"])
    return output.getvalue()


def main() -> None:
    """Write one file a size."""
    FOLDER.mkdir(exist_ok=True)
    for gigabytes in GIGABYTES:
        (FOLDER / f"{gigabytes}.txt").write_text(printed(gigabytes), encoding="utf-8")


if __name__ == "__main__":
    main()
