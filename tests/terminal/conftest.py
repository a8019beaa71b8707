"""What holds for all tests of the terminal."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder for each test: none writes to the user's own."""
    folder = tmp_path / "data"
    monkeypatch.setenv("GPTOSS_MLX_DATA", str(folder))
    return folder
