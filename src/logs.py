"""The five log files and the terminal. Knows nothing of what is logged; prompts and completions must never reach it.

Importing this module imports ssl and asyncio (loguru does): under gevent, import it after monkey-patching.
Several processes write to the same files: each line is written under a file lock, which also guards the rotation.
"""

import logging
import os
import re
import sys
from collections.abc import Callable
from contextlib import suppress
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from concurrent_log_handler import ConcurrentTimedRotatingFileHandler
from loguru import logger

from src.settings import Settings

if TYPE_CHECKING:
    from loguru import Record

app = logger.bind(log="app")
requests = logger.bind(log="api_requests")
models = logger.bind(log="model_operations")
metrics = logger.bind(log="system_metrics")

_FILE_LINE = "{time:YYYY-MM-DDTHH:mm:ss.SSSZZ} {level} {extra[process]}[{process}] {message}"
_TERMINAL_LINE = "{time:YYYY-MM-DD HH:mm:ss} {level: <7} {extra[process]}: {message}"

# What could break a line or steer a terminal: C0 and C1 controls, line and paragraph separators, bidirectional overrides.
_CONTROLS = [*range(32), *range(127, 160), *range(0x2028, 0x202F), *range(0x2066, 0x206A)]
_ESCAPES = {code: chr(code).encode("unicode_escape").decode() for code in _CONTROLS}
_TRACEBACK_ESCAPES = {code: text for code, text in _ESCAPES.items() if chr(code) not in "\n\t"}


class LogFile(ConcurrentTimedRotatingFileHandler):
    """One log file that starts anew at midnight, safe with several processes writing to it."""

    failure_told = False  # one word about a full disk or a lost folder is enough for all files

    def __init__(self, path: Path, retention_days: int, when: str = "midnight") -> None:
        self._folder, self._retention_days = path.parent, retention_days  # the base class may roll over at once
        super().__init__(path, when=when, encoding="utf-8", unicode_error_policy="replace")

    def format(self, record: logging.LogRecord) -> str:
        return _layout(record.getMessage())

    def doRollover(self) -> None:  # noqa: N802 - the base class names it
        super().doRollover()
        # The base class can count files, but a log without a line a day would then be kept for longer than the days set.
        _remove_old(self._folder, self._retention_days)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        _tell_failure(self._folder, sys.exc_info()[1])
        # What could not be written is given up, or it would sit in the buffer and come out in the middle of a later line.
        stream, self.clh.stream = self.clh.stream, None
        with suppress(OSError):
            if stream:
                stream.close()


def configure(settings: Settings, process: str) -> None:
    """Send this process's records to the terminal and the files. `process` names it there: gateway, manager, runner.

    To be called once in each process, after a fork. Never raises OSError: without its files the service still serves.
    """
    logger.remove()
    logger.configure(extra={"process": process, "log": "app"}, patcher=_escape)
    logger.add(
        _print, level=settings.log_level, format=_TERMINAL_LINE, filter=_is_for_terminal, backtrace=False, diagnose=False, catch=True
    )
    LogFile.failure_told = False
    if settings.enable_log_file:
        _add_files(settings)
    _forward_gunicorn()


def _add_files(settings: Settings) -> None:
    level = settings.log_level
    # A log of its own is there to be written: LOG_LEVEL=WARNING does not empty it.
    own_level = min(level, "INFO", key=lambda name: logger.level(name).no)
    _add_file(settings, "app", level, lambda record: record["extra"]["log"] != "api_requests")
    for name in ("api_requests", "model_operations", "system_metrics"):
        _add_file(settings, name, own_level, lambda record, name=name: record["extra"]["log"] == name)  # type: ignore[misc]
    _add_file(settings, "errors", "ERROR", lambda record: True)


def _add_file(settings: Settings, name: str, level: str, wanted: "Callable[[Record], bool]") -> None:
    try:
        settings.log_path.mkdir(parents=True, exist_ok=True)
        sink = LogFile(settings.log_path / f"{name}.log", settings.log_retention_days)
    except OSError as error:
        _tell_failure(settings.log_path, error)
        return
    # enqueue would hang gevent's workers (loguru#284); diagnose would print local variables, prompts among them.
    logger.add(sink, level=level, format=_FILE_LINE, filter=wanted, enqueue=False, backtrace=False, diagnose=False, catch=True)


class _GunicornForwarder(logging.Handler):
    """Gunicorn's own records, to the files only: Gunicorn prints them to the terminal itself."""

    def emit(self, record: logging.LogRecord) -> None:
        app.bind(terminal=False).opt(exception=record.exc_info).log(record.levelname, record.getMessage())


def _forward_gunicorn() -> None:
    gunicorn = logging.getLogger("gunicorn.error")
    for handler in [handler for handler in gunicorn.handlers if isinstance(handler, _GunicornForwarder)]:
        gunicorn.removeHandler(handler)
    gunicorn.addHandler(_GunicornForwarder())


def _is_for_terminal(record: "Record") -> bool:
    extra = record["extra"]
    return extra["log"] in ("app", "model_operations") and extra.get("terminal", True)


def _escape(record: "Record") -> None:
    record["message"] = record["message"].translate(_ESCAPES)


def _layout(text: str) -> str:
    """A record and its traceback, whose lines are indented so that none can pass for a record."""
    return text.rstrip("\n").translate(_TRACEBACK_ESCAPES).replace("\n", "\n    ")


def _print(message: str) -> None:
    print(_layout(message), file=sys.stderr, flush=True)


def _remove_old(folder: Path, retention_days: int) -> None:
    """Remove rotated logs of days before the last `retention_days`. Other processes may do the same at the same time."""
    oldest = date.today() - timedelta(days=retention_days)
    for path in folder.glob("*.log.*"):
        found = re.search(r"\.log\.(\d{4}-\d{2}-\d{2})", path.name)
        if found and found[1] < oldest.isoformat():
            with suppress(OSError):
                path.unlink()


def _tell_failure(folder: Path, error: BaseException | None) -> None:
    if not LogFile.failure_told:
        LogFile.failure_told = True
        with suppress(OSError):
            print(f"logs are not written to {folder}{os.sep}: {error}; serving goes on without them", file=sys.stderr, flush=True)
