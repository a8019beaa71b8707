"""Medians, ratios and shares, from results that were made up; and their JSON."""

from __future__ import annotations

import json

import pytest

from gptoss_mlx.bench.events import Failure
from gptoss_mlx.bench.results import as_dict
from gptoss_mlx.bench.turns import Turn

from .made_up import TOLD, results, turns, without_batch_rates


def test_the_json() -> None:
    """Everything: medians, extremes and every round of each figure, ratios, shares, settings."""
    report = json.loads(json.dumps(as_dict(results(TOLD))))
    assert report["machine"]["chip"] == "Apple M4 Pro"
    assert report["machine"]["versions"]["mlx"] == "0.32.4"
    assert report["model"] == {
        "name": "20b",
        "layers": 24,
        "experts": 32,
        "variant": "q8",
        "nbytes": 12 << 30,
    }
    assert report["settings"]["contexts"] == [512, 4096]
    assert report["settings"]["rounds"] == 3
    assert "/models" not in json.dumps(report)  # nobody's folders in an issue
    assert report["bandwidth"]["used"] == 273e9
    assert report["sides"]["mlx-lm"]["load_seconds"]["rounds"] == [2.0, 1.8, 2.4]
    row = report["contexts"][1]
    ours = row["gptoss-mlx"]
    assert ours["decode"] == {"median": 50, "min": 45, "max": 60, "rounds": [50, 45, 60]}
    assert ours["first_token_seconds"]["median"] == pytest.approx(4.096)
    assert ours["roofline_share"] == pytest.approx(50 * 2.6e9 / 273e9)
    assert ours["next_turn_cached_tokens"] == 4160
    assert row["ratios"]["next_turn_seconds"] == pytest.approx(0.8)
    assert row["equal_tokens"] == 40
    assert report["batches"][1]["mlx-lm"]["decode"]["median"] == 320
    assert report["left_out"] == []
    assert report["failures"] == {}
    assert report["complete"]


def test_a_round_that_was_cut_short() -> None:
    """Medians of the readings there are; a context that only one side has gives no ratio."""
    report = as_dict(results([*TOLD[:2], *turns("mlx-lm", 80, rounds=1)], is_complete=False))
    assert not report["complete"]
    first, second = report["contexts"]
    assert first["ratios"]["decode"] == pytest.approx(1.25)
    assert second["gptoss-mlx"] == {}
    assert "ratios" not in second


def test_a_side_that_failed() -> None:
    """What it gave before counts; why it failed is in the JSON."""
    told = [*TOLD[:15], Turn(0, "mlx-lm", Failure("out of memory"))]
    report = as_dict(results(told))
    assert report["failures"] == {"mlx-lm": "out of memory"}
    assert report["sides"]["mlx-lm"] == {}
    assert report["contexts"][0]["gptoss-mlx"]["decode"]["median"] == 100


def test_no_common_time() -> None:
    """A batch whose sequences never decoded together has no rate, and no ratio of it."""
    row = as_dict(results(without_batch_rates(TOLD)))["batches"][0]
    assert "decode" not in row["gptoss-mlx"]
    assert row["ratios"]["decode"] is None
    assert row["ratios"]["peak_bytes"] == 1
