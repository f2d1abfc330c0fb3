"""Removes what is left behind: logs past their days, downloads that nobody goes on with, sockets' folders of servers that were killed.

Touches nothing that a process holds.
"""

import asyncio
import contextlib
import fcntl
import os
import shutil
import stat
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from src import logs, rundir
from src.settings import Settings

CLEAN_SECONDS = 3600
DAY = 86_400


async def keep_clean(settings: Settings) -> None:
    """Runs till it is cancelled."""
    while True:
        await asyncio.to_thread(rundir.keep_fresh, settings.run_dir)
        removed = await asyncio.to_thread(lambda: list(clean(settings)))
        if removed:
            logs.app.info("Removed what was left behind: {}", ", ".join(removed))
        await asyncio.sleep(CLEAN_SECONDS)


def clean(settings: Settings) -> Iterator[str]:
    """Does it once. What was removed, but for logs."""
    logs.remove_old(settings.log_path, settings.log_retention_days)
    _bound_output(settings.log_path, settings.log_max_bytes)
    yield from _unfinished_downloads(settings.models_path / ".downloads", settings.temp_retention_days)
    _old_responses(settings.responses_path, settings.response_store_seconds)
    yield from _dead_run_dirs(Path(settings.run_dir))


def _bound_output(folder: Path, most: int) -> None:
    """Empty what this process prints to, where that is a file among the logs (launchd.log): whoever made it lets it grow for ever."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        stream = sys.stderr.fileno()
        output = os.fstat(stream)
        if most and stat.S_ISREG(output.st_mode) and output.st_size > most and _is_in(folder, output):
            os.ftruncate(stream, 0)


def _is_in(folder: Path, file: os.stat_result) -> bool:
    return any(os.path.samestat(path.stat(), file) for path in folder.iterdir() if path.is_file())


def _unfinished_downloads(folder: Path, days: int) -> Iterator[str]:
    for path in sorted(folder.glob("*/")):
        with _held(folder / f"{path.name}.lock") as ours:
            if ours and path.is_dir() and _age(path) > days * DAY:
                shutil.rmtree(path, ignore_errors=True)
                yield f"{path} (untouched for {days} days)"


def _old_responses(folder: Path, seconds: int) -> None:
    """Nobody gets them any more."""
    for path in folder.glob("*/*"):
        with contextlib.suppress(OSError):  # a worker may have been faster
            if time.time() - path.lstat().st_mtime > seconds:
                path.unlink()


def _dead_run_dirs(own: Path) -> Iterator[str]:
    """A folder without a lock is no server's, or of one that starts."""
    for path in rundir.private_folders():
        if path != own and (path / "lock").exists():
            rundir.remove_if_unclaimed(str(path))
            if not path.exists():
                yield f"{path} (its server was killed)"


@contextlib.contextmanager
def _held(lock: Path) -> Iterator[bool]:
    """Whether nobody else holds this lock; then we do, for as long."""
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:
        yield False
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield True
    except BlockingIOError:
        yield False
    finally:
        os.close(descriptor)


def _age(folder: Path) -> float:
    """Seconds since anything in it was changed."""
    newest = max((path.lstat().st_mtime for path in [folder, *folder.rglob("*")]), default=0.0)
    return time.time() - newest
