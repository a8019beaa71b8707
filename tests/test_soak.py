"""A short soak, seconds long; tests/soak.py has the whole one."""

from __future__ import annotations

import pytest
from soak import check_nothing_left, soak

pytestmark = pytest.mark.slow


def test_a_short_soak() -> None:
    """Requests that are cancelled, fail and run out of room: right ids, one end each, no leak."""
    report = soak(32, seed=1)
    check_nothing_left(report)
    assert sum(report.ends.values()) == 32
    assert report.counts["ids checked"] > 32
