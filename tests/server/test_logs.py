"""The log: lines of JSON, and only while a server runs."""

from __future__ import annotations

import io
import json
import logging

from gptoss_mlx.server.logs import logging_to

logger = logging.getLogger("gptoss_mlx.server.test")


def test_lines_for_people() -> None:
    """One a record, whatever its texts hold; a traceback follows."""
    stream = io.StringIO()
    with logging_to(stream, logging.WARNING, "text"):
        logger.warning("a\nb", extra={"fields": {"path": "/a b\n", "status": 200}})
        logger.info("not this")
        try:
            raise KeyError("inner")
        except KeyError:
            logger.exception("it failed")
    first, second, *traceback = stream.getvalue().splitlines()
    assert first[8:] == r' warning a\nb path="/a b\n" status=200'
    assert second.endswith("error it failed")
    assert traceback[-1] == "KeyError: 'inner'"


def test_uvicorns_warnings_are_ours() -> None:
    """In the same lines; what it says of itself is not logged."""
    stream = io.StringIO()
    with logging_to(stream):
        logging.getLogger("uvicorn.error").warning("Invalid HTTP request received.")
        logging.getLogger("uvicorn.error").info("Started server process")
    (line,) = map(json.loads, stream.getvalue().splitlines())
    assert (line["level"], line["message"]) == ("warning", "Invalid HTTP request received.")


def test_lines() -> None:
    """Message, fields and traceback are one object a line; the logger is as it was afterwards."""
    stream = io.StringIO()
    parent = logging.getLogger("gptoss_mlx")
    before = parent.level, parent.propagate, list(parent.handlers)
    with logging_to(stream):
        logger.info("hello %s", "you", extra={"fields": {"path": "/"}})
        logger.debug("not this")
        try:
            raise KeyError("inner")
        except KeyError:
            logger.exception("it\nfailed")
    logger.info("too late")
    first, second = map(json.loads, stream.getvalue().splitlines())
    assert first.pop("time").endswith("Z")
    assert first == {"level": "info", "message": "hello you", "path": "/"}
    assert (second["level"], second["message"]) == ("error", "it\nfailed")
    assert "KeyError: 'inner'" in second["traceback"]
    assert (parent.level, parent.propagate, list(parent.handlers)) == before
