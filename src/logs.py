"""The six log files and the terminal. Knows nothing of what is logged; prompts, completions and keys must never reach it.

Importing this module imports ssl and asyncio (loguru does): under gevent, import it after monkey-patching.
Several processes write to the same files: each line is written under a file lock, which also guards the rotation.
The level can change while they run: a file in RUN_DIR tells it, which every process looks at once a second.
"""

import json
import logging
import os
import re
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loguru import logger

from src import terminal
from src.settings import Settings

# The lock of the log files would import Redis' client, which it does not need, in every process: 0.2 s, a third of a start.
sys.modules.setdefault("portalocker.redis", None)  # type: ignore[arg-type]
from concurrent_log_handler import ConcurrentTimedRotatingFileHandler  # noqa: E402

if TYPE_CHECKING:
    from loguru import Logger, Record

app = logger.bind(log="app")
requests = logger.bind(log="api_requests")
models = logger.bind(log="model_operations")
metrics = logger.bind(log="system_metrics")
audit = logger.bind(log="audit")  # who changed models, keys and logs

_FILE_LINE = "{time:YYYY-MM-DDTHH:mm:ss.SSSZZ} {level} {extra[process]}[{process}] {message}"
_TERMINAL_LINE = "{time:YYYY-MM-DD HH:mm:ss} {level: <7} {extra[process]}: {message}"

# What could break a line or steer a terminal: C0 and C1 controls, line and paragraph separators, bidirectional overrides.
_CONTROLS = [*range(32), *range(127, 160), *range(0x2028, 0x202F), *range(0x2066, 0x206A)]
_NEEDS_QUOTES = re.compile(r"[\s'\"=]|^-?$")  # a dash alone stands for what is not there
_ESCAPES = {code: chr(code).encode("unicode_escape").decode() for code in _CONTROLS}
_TRACEBACK_ESCAPES = {code: text for code, text in _ESCAPES.items() if chr(code) not in "\n\t"}


LEVELS = ("TRACE", "DEBUG", "INFO", "WARNING", "ERROR")
LEVEL_FILE = "log_level"  # in RUN_DIR
LOOK_SECONDS = 1.0
PIECES = 8  # files that a log may have when it is as large as it may be; the oldest goes


class _Now:
    """The level of this process, and its least number."""

    name = "INFO"
    number = 20
    run_dir = ""
    follower: threading.Thread | None = None


class LogFile(ConcurrentTimedRotatingFileHandler):
    """One log file that starts anew at midnight or when it is large, safe with several processes writing to it."""

    failure_told = False  # one word about a full disk or a lost folder is enough for all files

    def __init__(self, path: Path, retention_days: int, max_bytes: int = 0, when: str = "midnight") -> None:
        """`max_bytes`: of this log with its older files; 0: unlimited."""
        self._path, self._folder, self._retention_days, self._max_bytes = path, path.parent, retention_days, max_bytes
        # The base class may roll over at once.
        super().__init__(path, when=when, encoding="utf-8", unicode_error_policy="replace", maxBytes=max_bytes // PIECES)

    def format(self, record: logging.LogRecord) -> str:
        return _layout(record.getMessage())

    def doRollover(self) -> None:  # noqa: N802 - the base class names it
        super().doRollover()
        # The base class can count files, but a log without a line a day would then be kept for longer than the days set.
        remove_old(self._folder, self._retention_days)
        if self._max_bytes:
            _remove_surplus(self._path, self._max_bytes - self._max_bytes // PIECES)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        _tell_failure(self._folder, sys.exc_info()[1])
        # What could not be written is given up, or it would sit in the buffer and come out in the middle of a later line.
        stream, self.clh.stream = self.clh.stream, None
        with suppress(OSError):
            if stream:
                stream.close()


class LateFile(logging.Handler):
    """A log file that may not be there yet: a folder that cannot be made or written to at the start may be able to be later."""

    def __init__(self, path: Path, retention_days: int, max_bytes: int) -> None:
        super().__init__()
        self._path, self._retention_days, self._max_bytes = path, retention_days, max_bytes
        self._file: LogFile | None = None
        self._try_at = 0.0  # in time.monotonic() seconds
        self._open()

    def emit(self, record: logging.LogRecord) -> None:
        if self._file is None and time.monotonic() >= self._try_at:
            self._open()
        if self._file is not None:
            self._file.emit(record)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
        super().close()

    def _open(self) -> None:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = LogFile(self._path, self._retention_days, self._max_bytes)
        except OSError as error:
            self._try_at = time.monotonic() + LOOK_SECONDS
            _tell_failure(self._path.parent, error)


def configure(settings: Settings, process: str) -> None:
    """Send this process's records to the terminal and the files. `process` names it there: gateway, manager, runner.

    To be called once in each process, after a fork. Never raises OSError: without its files the service still serves.
    """
    logger.remove()
    logger.configure(extra={"process": process, "log": "app"}, patcher=_escape)
    _Now.run_dir = settings.run_dir
    _set_level(_changed_level() or settings.log_level)
    layout = _json_line if settings.log_format == "json" else _text_of(_TERMINAL_LINE)
    wanted = lambda record: _is_for_terminal(record) and record["level"].no >= _Now.number  # noqa: E731
    logger.add(_print, level=0, format=layout, filter=wanted, backtrace=False, diagnose=False, catch=True)
    LogFile.failure_told = False
    if settings.enable_log_file:
        _add_files(settings)
    _forward_gunicorn()
    if settings.run_dir and _Now.follower is None:
        # Under gevent a greenlet, elsewhere a thread: it ends with its process.
        _Now.follower = threading.Thread(target=_follow_level, daemon=True)
        _Now.follower.start()


def write(log: "Logger", **fields: Any) -> None:
    """One line of facts: name=value each in text, fields of the object in JSON. None is written as - and null."""
    log.bind(fields=fields).info(" ".join(f"{name}={_word(value)}" for name, value in fields.items()))


def level() -> str:
    """What is logged by this process at the moment."""
    return _Now.name


def change_level(settings: Settings, name: str) -> None:
    """For every process of this server, also those that start later; till the server stops. Raises OSError."""
    path = Path(settings.run_dir, LEVEL_FILE)
    part = path.with_suffix(f".{os.getpid()}")
    part.write_text(name)
    part.replace(path)
    _set_level(name)


def _follow_level() -> None:
    while True:
        time.sleep(LOOK_SECONDS)
        name = _changed_level()
        if name and name != _Now.name:
            _set_level(name)


def _changed_level() -> str | None:
    """What the file in RUN_DIR says; None where nobody has changed the level."""
    try:
        name = Path(_Now.run_dir, LEVEL_FILE).read_text() if _Now.run_dir else ""
    except (OSError, UnicodeError):
        return None
    return name if name in LEVELS else None


def _set_level(name: str) -> None:
    _Now.name, _Now.number = name, logger.level(name).no


def _add_files(settings: Settings) -> None:
    least = logger.level("INFO").no  # of a log of its own, which is there to be written: LOG_LEVEL=WARNING does not empty it
    _add_file(settings, "app", lambda record: record["extra"]["log"] != "api_requests" and record["level"].no >= _Now.number)
    for name in ("api_requests", "model_operations", "system_metrics", "audit"):
        mine = lambda record, name=name: record["extra"]["log"] == name and record["level"].no >= min(_Now.number, least)  # noqa: E731
        _add_file(settings, name, mine)
    _add_file(settings, "errors", lambda record: record["level"].no >= logger.level("ERROR").no)


def _add_file(settings: Settings, name: str, wanted: "Callable[[Record], bool]") -> None:
    sink = LateFile(settings.log_path / f"{name}.log", settings.log_retention_days, settings.log_max_bytes)
    layout = _json_line if settings.log_format == "json" else _text_of(_FILE_LINE)
    # enqueue would hang gevent's workers (loguru#284); diagnose would print local variables, prompts among them.
    logger.add(sink, level=0, format=layout, filter=wanted, enqueue=False, backtrace=False, diagnose=False, catch=True)


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


def _text_of(line: str) -> "Callable[[Record], str]":
    return lambda record: line + "\n{exception}"


def _json_line(record: "Record") -> str:
    """The record as one object on one line, as a format in which it stands ready made."""
    raised = record["exception"]
    extra: dict[str, Any] = record["extra"]
    line = {
        "time": record["time"].isoformat(timespec="milliseconds"),
        "level": record["level"].name,
        "log": extra["log"],
        "process": extra["process"],
        "pid": record["process"].id,
        **(extra.get("fields") or {"message": record["message"]}),
    }
    if raised:
        line["exception"] = "".join(traceback.format_exception(raised.type, raised.value, raised.traceback))
    extra["json"] = json.dumps(line, default=str)
    return "{extra[json]}\n"


def _word(value: object) -> str:
    if value is None:
        return "-"
    text = str(value)
    return repr(text) if _NEEDS_QUOTES.search(text) else text


def _layout(text: str) -> str:
    """A record and its traceback, whose lines are indented so that none can pass for a record."""
    return text.rstrip("\n").translate(_TRACEBACK_ESCAPES).replace("\n", "\n    ")


def _print(message: str) -> None:
    terminal.say(_layout(message))


def remove_old(folder: Path, retention_days: int) -> None:
    """Remove rotated logs of days before the last `retention_days`. Other processes may do the same at the same time."""
    oldest = date.today() - timedelta(days=retention_days)
    for path in folder.glob("*.log.*"):
        found = re.search(r"\.log\.(\d{4}-\d{2}-\d{2})", path.name)
        if found and found[1] < oldest.isoformat():
            with suppress(OSError):
                path.unlink()


def _remove_surplus(path: Path, most: int) -> None:
    """Of the older files of a log keep the newest, of `most` bytes in all."""
    older = []
    for each in path.parent.glob(f"{path.name}.*"):
        with suppress(OSError):
            older.append((each.stat().st_mtime_ns, each.stat().st_size, each))
    for _, size, each in sorted(older, reverse=True):
        most -= size
        if most < 0:
            with suppress(OSError):
                each.unlink()


def _tell_failure(folder: Path, error: BaseException | None) -> None:
    if not LogFile.failure_told:
        LogFile.failure_told = True
        terminal.say(f"logs are not written to {folder}{os.sep}: {error}; serving goes on without them")
