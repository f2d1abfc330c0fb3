"""Gunicorn's own records: to a terminal that keeps nobody waiting, and as JSON for LOG_FORMAT=json. Knows no route.

Imported in the master: no ssl, no asyncio here.
"""

import json
import logging
from datetime import datetime, timezone
from typing import Any

from gunicorn.glogging import Logger

from src import terminal


class JSONLine(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "log": record.name,
            "process": "gunicorn",
            "pid": record.process,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


class TextLogger(Logger):  # type: ignore[misc]  # gunicorn has no types
    def _set_handler(self, log: logging.Logger, output: Any, fmt: logging.Formatter, stream: Any = None) -> None:
        super()._set_handler(log, output, fmt, terminal.Stream() if output == "-" and stream is None else stream)


class JSONLogger(TextLogger):
    def _set_handler(self, log: logging.Logger, output: Any, fmt: logging.Formatter, stream: Any = None) -> None:
        super()._set_handler(log, output, JSONLine(), stream)
