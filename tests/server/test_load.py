"""A short run of benchmarks/serve_load.py: clients that come all at once and leave at random."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "serve_load.py"


@pytest.mark.slow
def test_load() -> None:
    """Every stream is whole or left, nobody gets a 5xx, and the server keeps nothing of it."""
    command = [sys.executable, str(SCRIPT), "--clients", "30", "--seconds", "5"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "bad: nothing; left over: nothing" in done.stdout
