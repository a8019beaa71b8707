"""Skips what the machine's compilers cannot do."""

from __future__ import annotations

import pytest

from .compiler import available, names_lines
from .lint import lint_available


@pytest.fixture
def compiler() -> None:
    """Where nothing can build kernels, skip."""
    if not available():
        pytest.skip("needs g++ >= 12 or clang++")


@pytest.fixture
def clang() -> None:
    """Where nothing can lint kernels, skip."""
    if not lint_available():
        pytest.skip("needs clang or the ziglang package")


@pytest.fixture
def line_numbers() -> None:
    """Where a trace cannot name lines, skip."""
    if not names_lines():
        pytest.skip("needs addr2line, and not macOS")
