"""Whether processes of others are gone, for the tests of tools that start some."""

from __future__ import annotations

import os
import time
from pathlib import Path

__all__ = ["is_gone"]


def is_gone(pid: int) -> bool:
    """Whether a process ends within two seconds."""
    for _ in range(200):
        stat = Path(f"/proc/{pid}/stat")
        try:
            os.kill(pid, 0)
            if stat.exists() and stat.read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except ProcessLookupError:
            return True
        time.sleep(0.01)
    return False
