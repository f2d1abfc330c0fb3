"""Files that hold secrets: read only where nobody else may, written whole or not at all. Knows nothing of what is in them."""

import contextlib
import os
import stat
from pathlib import Path

from src.errors import SettingsError

OTHERS = stat.S_IRWXG | stat.S_IRWXO  # may neither group nor anybody else
ANYBODY = stat.S_IRWXO  # a group may: systemd and Docker hand over secrets so


def read(path: Path, name: str, forbidden: int = ANYBODY) -> str:
    """The text of the file that the setting `name` names. Raises SettingsError where it cannot be read, or others may read it."""
    wrong = f"{name}={str(path)!r} is wrong"
    check_mode(path, wrong, forbidden)
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeError) as error:
        raise SettingsError(f"{wrong}: it cannot be read ({_reason(error)})") from error


def check_mode(path: Path, complaint: str, forbidden: int = OTHERS) -> None:
    """Raises SettingsError, which begins with `complaint`, where the file is not there, or open to those it is `forbidden` to."""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise SettingsError(f"{complaint}: expected a file that can be read ({_reason(error)})") from error
    if mode & forbidden:
        raise SettingsError(f"{complaint}: others may use it (mode {mode & 0o777:04o}). Run: chmod 600 {path}")


def write(path: Path, data: bytes) -> None:
    """Put `data` into its place in one step, with mode 0600 and the owner of the file, or of the folder, that is there."""
    path = path.resolve()
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    with contextlib.suppress(FileNotFoundError):
        part.unlink()  # of a process with this number that was killed
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with open(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(descriptor)
            if os.geteuid() == 0:  # the server need not run as root
                owner = (path if path.exists() else path.parent).stat()
                os.fchown(descriptor, owner.st_uid, owner.st_gid)
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _reason(error: Exception) -> str:
    return error.strerror or "error" if isinstance(error, OSError) else "it is not UTF-8"
