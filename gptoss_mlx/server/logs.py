"""The server's log: one JSON object a line."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, TextIO

__all__ = ["JsonFormatter", "logging_to"]

_FIELDS = "fields"  # of a record, in `extra`: what stands beside the message


class JsonFormatter(logging.Formatter):
    """A record as JSON: time (UTC), level, message, its fields, and the traceback of an error."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        line: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created)),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            **getattr(record, _FIELDS, {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line)


@contextmanager
def logging_to(stream: TextIO, level: int = logging.INFO) -> Generator[None]:
    """Within it, the server's log goes to the stream, and nowhere else."""
    logger = logging.getLogger("gptoss_mlx.server")
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    before = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(level)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.level, logger.propagate = before
