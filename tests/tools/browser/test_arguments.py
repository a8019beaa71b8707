"""Arguments, read with patience."""

from __future__ import annotations

import math

import pytest

from gptoss_mlx.errors import ToolError
from gptoss_mlx.tools.browser.arguments import flag, integer, text, whole_number


@pytest.mark.parametrize(
    "value", [3, 3.0, "3", " 3 ", "3.0", "L3", "[3]", [3], "【3】", "【3†words†a.no】"]
)
def test_whole_numbers(value: object) -> None:
    """A number is understood however it is spelled."""
    assert whole_number(value) == 3


@pytest.mark.parametrize(
    "value",
    [None, True, "", "x", "3x", 3.5, math.nan, math.inf, 10**30, [3, 4], {}, "3 4", "https://3"],
)
def test_no_whole_numbers(value: object) -> None:
    """Everything else is no number."""
    assert whole_number(value) is None


def test_integer() -> None:
    """Missing, null and empty give the default; nonsense is an error that names the key."""
    assert [integer({"a": a}, "a", 7) for a in (None, "", "-1", 2)] == [7, 7, -1, 2]
    assert integer({}, "a", 7) == 7
    with pytest.raises(ToolError, match="loc must be a whole number, not 'top'"):
        integer({"loc": "top"}, "loc", -1)


def test_text() -> None:
    """Numbers are text; what is blank or of another kind is an error that shows an example."""
    assert [text({"a": a}, "a", "") for a in ("x", 7, 1.5)] == ["x", "7", "1.5"]
    for value in (None, "", " ", True, ["x"]):
        with pytest.raises(ToolError, match="query is missing: send an example"):
            text({"query": value}, "query", "an example")


def test_flag() -> None:
    """A switch is on when it says so."""
    assert [flag({"a": a}, "a") for a in (True, "true", "True", 1, "1")] == [True] * 5
    assert [flag({"a": a}, "a") for a in (False, None, "false", 0, "")] == [False] * 5
