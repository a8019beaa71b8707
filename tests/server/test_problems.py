"""Errors of the package as clients meet them."""

from __future__ import annotations

import logging
from typing import Any, Literal

import pytest
from pydantic import BaseModel, ValidationError

from gptoss_mlx.errors import (
    BusyError,
    CacheFullError,
    ConfigError,
    ContextLengthError,
    DeadlineError,
    DiskError,
    GrammarError,
    MemoryPlanError,
    UsageError,
)
from gptoss_mlx.server.problems import Problem, anthropic_error, openai_error, problem_of


class _Part(BaseModel):
    text: str


class _Asked(BaseModel):
    names: list[int]
    content: str | list[_Part] = ""
    kind: Literal["a"] | _Part = "a"


@pytest.mark.parametrize(
    ("error", "status", "kind", "code"),
    [
        (UsageError("x"), 400, "invalid_request_error", None),
        (GrammarError("x"), 400, "invalid_request_error", None),
        (ContextLengthError("x"), 400, "invalid_request_error", "context_length_exceeded"),
        (BusyError("x"), 429, "rate_limit_error", "rate_limit_exceeded"),
        (DeadlineError("x"), 504, "server_error", "timeout"),
        (MemoryPlanError("x"), 503, "server_error", "model_not_loaded"),
        (ConfigError("x"), 503, "server_error", "model_not_loaded"),
        (DiskError("x"), 500, "server_error", None),
    ],
)
def test_statuses(error: Exception, status: int, kind: str, code: str | None) -> None:
    """Each kind of error has its status, and its text is told."""
    problem = problem_of(error)
    assert (problem.status, problem.kind, problem.code) == (status, kind, code)
    assert problem.message == "x"


def test_busy_says_when_to_try_again() -> None:
    """A client that is turned away is told when to come back."""
    assert int(problem_of(BusyError("x")).headers["retry-after"]) > 0


def test_a_problem_stays_as_it_is() -> None:
    """What is a problem already is handed on."""
    problem = Problem(418, "teapot")
    assert problem_of(problem) is problem


def test_the_unforeseen_is_logged_and_not_told(caplog: pytest.LogCaptureFixture) -> None:
    """An error of the program's own shows in the log, and nothing of it to the client."""
    problem = problem_of(KeyError("secret"))
    assert problem.status == 500
    assert "secret" not in problem.message
    assert caplog.records[0].levelno == logging.ERROR
    assert "secret" in caplog.text


def test_a_failed_request_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """What is the server's fault is in its log, too; what is the client's is not."""
    problem_of(UsageError("theirs"))
    problem_of(DiskError("ours"))
    problem_of(CacheFullError("ours, too"))
    messages = [record.getMessage() for record in caplog.records]
    assert messages == ["a request failed: ours", "a request failed: ours, too"]


def test_a_full_cache_is_no_bug() -> None:
    """Another request may fit: a 503, which says what helps."""
    problem = problem_of(CacheFullError("no room for 9 tokens: shorten it"))
    assert (problem.status, problem.code) == (503, "cache_full")
    assert problem.message.startswith("no room for 9 tokens: shorten it")
    assert "--kv-bits 8" in problem.message


def test_a_wrong_type_names_its_place() -> None:
    """The first thing wrong is named, the others are counted, and no value is repeated."""
    with pytest.raises(ValidationError) as caught:
        _Asked.model_validate({"names": [1, "secret", "secret"]})
    problem = problem_of(caught.value)
    assert (problem.status, problem.param) == (400, "names.1")
    assert problem.message.startswith("names.1: ")
    assert problem.message.endswith("(and 1 more)")
    assert "secret" not in problem.message


@pytest.mark.parametrize(
    ("field", "value", "param"),
    [
        ("content", 5, "content"),
        ("content", [{"text": "a"}, {"text": 5}], "content.1.text"),
        ("content", [{"text": None}], "content.0.text"),
        ("kind", "b", "kind"),
    ],
)
def test_types_are_no_places(field: str, value: Any, param: str) -> None:
    """Where several types are possible, the place is the one in the request."""
    with pytest.raises(ValidationError) as caught:
        _Asked.model_validate({"names": [], field: value})
    assert problem_of(caught.value).param == param


def test_messages_are_short() -> None:
    """However long what they repeat is."""
    assert Problem(400, "x" * 10_000).message == "x" * 400 + "…"


def test_shapes() -> None:
    """Each API gets its own shape."""
    problem = Problem(404, "gone", param="id", code="missing")
    assert openai_error(problem) == {
        "error": {
            "message": "gone",
            "type": "invalid_request_error",
            "param": "id",
            "code": "missing",
        }
    }
    assert anthropic_error(problem) == {
        "type": "error",
        "error": {"type": "not_found_error", "message": "gone"},
    }


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, "invalid_request_error"), (401, "authentication_error"), (500, "api_error")],
)
def test_anthropic_types(status: int, kind: str) -> None:
    """The type follows from the status."""
    assert anthropic_error(Problem(status, "x"))["error"]["type"] == kind
