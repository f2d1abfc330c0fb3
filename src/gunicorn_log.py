"""Gunicorn's own records as JSON, one object a line, for LOG_FORMAT=json. Imported in the master: no ssl, no asyncio here."""

import json
import logging
from datetime import datetime, timezone
from typing import Any

from gunicorn.glogging import Logger


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


class JSONLogger(Logger):  # type: ignore[misc]  # gunicorn has no types
    def _set_handler(self, log: logging.Logger, output: Any, fmt: logging.Formatter, stream: Any = None) -> None:
        super()._set_handler(log, output, JSONLine(), stream)
