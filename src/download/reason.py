"""Why a hub's client failed, in English. What the client itself says, in whatever language, goes to downloads.log."""

import http
import logging
import os
import time
from pathlib import Path

FILE = "downloads.log"
_log = logging.getLogger(__name__)
_log.propagate = False
_log.addHandler(logging.NullHandler())


def keep_log(folder: Path, retention_days: int, max_bytes: int) -> None:
    """Have the clients' own words appended to a file in this folder, if it is there. It has the bounds of the server's own logs."""
    from src.logs import LogFile

    try:
        handler: logging.Handler = LogFile(folder / FILE, retention_days, max_bytes)
    except OSError:
        handler = logging.NullHandler()
    _log.addHandler(handler)


def english(error: BaseException) -> str:
    """The reason by the error's HTTP status, its system error, or else its kind."""
    _log.warning("%s %s: %.2000s", time.strftime("%Y-%m-%d %H:%M:%S%z"), type(error).__name__, repr(str(error))[1:-1])
    status = getattr(error, "status_code", None) or getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(status, int):
        return f"HTTP {status} {_phrase(status)}".rstrip()
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    kinds = [kind.__name__ for kind in type(error).__mro__]
    return next((text for kind, text in _KINDS.items() if kind in kinds), type(error).__name__)


# By the names of classes, of any library: the first that an error is one of.
_KINDS = {
    "Timeout": "no answer in time",
    "TimeoutError": "no answer in time",
    "SSLError": "the server's certificate is not trusted",
    "ConnectionError": "the server cannot be reached",
    "FileIntegrityError": "what came is not what the listing has",
    "CacheError": "the client's own cache cannot be used",
    "StorageError": "the hub's file storage failed",
}


def _phrase(status: int) -> str:
    try:
        return http.HTTPStatus(status).phrase
    except ValueError:
        return ""
