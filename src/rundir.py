"""The private folder of one instance: made, claimed and removed. Knows nothing of the sockets in it.

The claim is a lock of the master's process: forks do not have it, and it ends with the process, however that ends.
Another user who could write to the folder could read prompts by taking the place of a socket, so such a folder is refused.
"""

import errno
import fcntl
import os
import shutil
import stat
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import IO

from src.errors import SettingsError

PREFIX = "inference-"  # of a folder that was not named by RUN_DIR
LONGEST_PARENT = 80  # characters: paths of sockets in it have to stay below 104
CACHE_DIR_OF_DARWIN = 65538  # _CS_DARWIN_USER_CACHE_DIR of macOS' unistd.h; os.confstr_names does not have it
_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_LOCK = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC

_claims: list[IO[bytes]] = []  # held till the process ends


def claim(path: str) -> str:
    """The folder at `path`, or a new one where that is empty. Raises SettingsError where others may use it or another instance does."""
    path = os.path.normpath(path) if path else tempfile.mkdtemp(prefix=PREFIX, dir=_parent())  # a slash at its end would follow a link
    try:
        folder = _make(path)
        try:
            lock = _open_lock(folder)
        finally:
            os.close(folder)
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
    """By a process whose master is gone: another instance may have the folder by now. One that is not private is left alone."""
    with suppress(OSError, SettingsError):
        folder = _open_private(path)
        try:
            with _open_lock(folder) as lock:
                fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path, ignore_errors=True)
        finally:
            os.close(folder)


def private_folders() -> list[Path]:
    """Folders of this user's instances without a RUN_DIR, running or killed."""
    found = []
    for path in sorted(Path(_parent()).glob(f"{PREFIX}*/")):
        with suppress(OSError, SettingsError):
            os.close(_open_private(str(path)))
            found.append(path)
    return found


def keep_fresh(path: str) -> None:
    """Mark all that lies there as read just now: systems remove what nobody has used for days from folders for temporary files. When
    something was written stays as it was."""
    for folder, _, files in os.walk(path):
        for name in [folder, *(os.path.join(folder, file) for file in files)]:
            with suppress(OSError):
                os.utime(name, ns=(time.time_ns(), os.stat(name, follow_symlinks=False).st_mtime_ns), follow_symlinks=False)


def _parent() -> str:
    """macOS removes what is three days old from its folders for temporary files, but not from a user's folder for caches."""
    if sys.platform == "darwin":
        folder = os.confstr(CACHE_DIR_OF_DARWIN)
        if folder and len(folder) <= LONGEST_PARENT:
            return folder
    return tempfile.gettempdir()


def _make(path: str) -> int:
    """A descriptor of the folder, which is made where it is not there. Raises SettingsError, OSError."""
    parent = os.path.dirname(os.path.abspath(path))
    os.makedirs(parent, mode=0o700, exist_ok=True)
    _check_parents(path, parent)
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        return _open_private(path)
    folder = _open_private(path)
    os.fchmod(folder, 0o700)  # the umask may have taken more away
    return folder


def _open_private(path: str) -> int:
    """A descriptor of a folder that this user alone may use. Raises SettingsError, OSError."""
    try:
        folder = os.open(path, _FOLDER)
    except OSError:
        if os.path.islink(path):
            raise SettingsError(f"RUN_DIR={path!r} is a link, which others could turn elsewhere. Set it to a folder of its own.") from None
        raise
    found = os.fstat(folder)
    if found.st_uid == os.geteuid() and not found.st_mode & _OTHERS:
        return folder
    os.close(folder)
    if found.st_uid != os.geteuid():
        raise SettingsError(
            f"RUN_DIR={path!r} belongs to another user (uid {found.st_uid}), who could read every prompt. "
            "Set it to a folder that is not there yet, or leave it empty."
        )
    raise SettingsError(f"RUN_DIR={path!r} is open to other users (mode {found.st_mode & 0o777:04o}). Run: chmod 700 {path}")


def _check_parents(path: str, parent: str) -> None:
    """Raises SettingsError where anybody may replace the folder, or one above it. Their owners and groups are trusted."""
    here = Path(os.path.realpath(parent))
    for above in (here, *here.parents):
        mode = above.stat().st_mode
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            raise SettingsError(
                f"RUN_DIR={path!r} lies in {above}, where every user may replace it. Choose another place, or run: chmod o-w {above}"
            )


def _open_lock(folder: int) -> IO[bytes]:
    """The lock in a private folder, as it is: nothing of it is read or truncated. Raises OSError."""
    descriptor = os.open("lock", _LOCK, 0o600, dir_fd=folder)
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
        os.close(descriptor)
        raise PermissionError(errno.EPERM, "its lock is not a file of this user")
    return open(descriptor, "r+b", buffering=0)
