"""The server's log: one JSON object a line, or one line for people."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Generator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, Literal, TextIO

__all__ = ["JsonFormatter", "LogFormat", "TextFormatter", "logging_to"]

LogFormat = Literal["json", "text"]
_FIELDS = "fields"  # of a record, in `extra`: what stands beside the message


class JsonFormatter(logging.Formatter):
    """A record as JSON: time (UTC), level, message, its fields, and the traceback of an error."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        line: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created)),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            **_fields_of(record),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line)


class TextFormatter(logging.Formatter):
    """The same for people: the local time, and fields as name=value."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, and a traceback below it."""
        fields = [f"{name}={json.dumps(value)}" for name, value in _fields_of(record).items()]
        head = time.strftime("%H:%M:%S", time.localtime(record.created))
        line = " ".join([head, record.levelname.lower(), json.dumps(record.getMessage())[1:-1]])
        traceback = [self.formatException(record.exc_info)] if record.exc_info else []
        return "\n".join([" ".join([line, *fields]), *traceback])


@contextmanager
def logging_to(
    stream: TextIO, level: int = logging.INFO, log_format: LogFormat = "json"
) -> Generator[None]:
    """Within it, the log goes to the stream, and nowhere else: ours, and what uvicorn warns of."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    with ExitStack() as stack:
        for name, lowest in (("gptoss_mlx", level), ("uvicorn", max(level, logging.WARNING))):
            stack.enter_context(_redirected(logging.getLogger(name), handler, lowest))
        yield


@contextmanager
def _redirected(logger: logging.Logger, handler: logging.Handler, level: int) -> Generator[None]:
    before = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(level)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before[0])
        logger.propagate = before[1]


def _fields_of(record: logging.LogRecord) -> Mapping[str, Any]:
    return getattr(record, _FIELDS, {})
