"""The private folder of one instance: made, claimed and removed. Knows nothing of the sockets in it.

The claim is a lock of the master's process: forks do not have it, and it ends with the process, however that ends.
"""

import fcntl
import os
import shutil
import tempfile
from typing import IO

from src.errors import SettingsError

_claims: list[IO[str]] = []  # held till the process ends


def claim(path: str) -> str:
    """The folder at `path`, or a new one where that is empty. Raises SettingsError where another instance has it."""
    path = path or tempfile.mkdtemp(prefix="inference-")
    try:
        os.makedirs(path, mode=0o700, exist_ok=True)
        lock = open(os.path.join(path, "lock"), "w")  # noqa: SIM115 - held till the process ends
    except OSError as error:
        raise SettingsError(
            f"RUN_DIR={path!r} cannot be used: {error.strerror}. Set it to a folder that this user may write to."
        ) from error
    try:
        fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.close()
        raise SettingsError(
            f"RUN_DIR={path!r} is in use by another instance. Set it to another folder for each, or leave it empty."
        ) from error
    _claims.append(lock)
    return path


def remove(path: str) -> None:
    """By the process that claimed it, at its end."""
    shutil.rmtree(path, ignore_errors=True)


def remove_if_unclaimed(path: str) -> None:
    """By a process whose master is gone: another instance may have the folder by now."""
    try:
        with open(os.path.join(path, "lock"), "w") as lock:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path, ignore_errors=True)
    except OSError:
        pass
