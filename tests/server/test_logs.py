"""The log: lines of JSON, and only while a server runs."""

from __future__ import annotations

import io
import json
import logging

from gptoss_mlx.server.logs import logging_to

logger = logging.getLogger("gptoss_mlx.server.test")


def test_lines() -> None:
    """Message, fields and traceback are one object a line; the logger is as it was afterwards."""
    stream = io.StringIO()
    parent = logging.getLogger("gptoss_mlx.server")
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
