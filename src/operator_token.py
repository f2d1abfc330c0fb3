"""The operator's token: while there are no keys, whoever can read it runs this server. Lies in RUN_DIR, for this user alone.

Without a RUN_DIR the folder is found among those of this user in the folder for temporary files: no secret, and no file whose
name another user could take first, lies anywhere else.
"""

import hmac
import secrets
from pathlib import Path

from src import rundir, secret_files
from src.errors import SettingsError

FILE = "operator_token"
_PORT_FILE = "port"  # of the instance, for who looks for its folder


def make(run_dir: str, port: int | None) -> None:
    """A new token, by the master at its start. `port`: where it listens; None on a Unix socket. Raises OSError."""
    secret_files.write(Path(run_dir, _PORT_FILE), str(port or "").encode())
    secret_files.write(Path(run_dir, FILE), secrets.token_urlsafe(32).encode() + b"\n")


def fits(run_dir: str, presented: str) -> bool:
    """Whether it is the token. False where there is none."""
    try:
        token = Path(run_dir, FILE).read_bytes().strip()
    except OSError:
        return False
    return bool(token) and hmac.compare_digest(presented.encode("utf-8", "surrogateescape"), token)


def find(run_dir: str, port: int) -> Path:
    """Where the token of this user's instance at `port` lies. `run_dir`: where it was set. Raises SettingsError."""
    folders = [Path(run_dir)] if run_dir else rundir.private_folders()
    found = [folder / FILE for folder in folders if _port_of(folder) == str(port) and (folder / FILE).exists()]
    if not found:
        raise SettingsError(
            f"No server of this user listens on PORT={port}{f' with RUN_DIR={run_dir!r}' if run_dir else ''}. Start it, or set PORT and "
            "RUN_DIR as it has them, and run this as its user."
        )
    return max(found, key=lambda path: path.stat().st_mtime)  # older ones are of servers that were killed


def _port_of(folder: Path) -> str | None:
    try:
        return (folder / _PORT_FILE).read_text()
    except (OSError, UnicodeError):
        return None
