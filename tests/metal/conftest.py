"""Kernels of these tests run on the host, where the machine's compilers can build and lint them."""

from __future__ import annotations

import metal_host
import mlx.core as mx
import pytest


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> None:
    """Launches go to the host; where nothing can build kernels, skip."""
    if not metal_host.available():
        pytest.skip("needs g++ >= 12 or clang++")
    monkeypatch.setattr(mx.fast, "metal_kernel", metal_host.metal_kernel)


@pytest.fixture
def clang() -> None:
    """Where nothing can lint kernels, skip."""
    if not metal_host.lint_available():
        pytest.skip("needs clang or the ziglang package")
