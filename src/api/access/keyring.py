"""The keys of this server in memory: whose key was presented. Follows the file's changes."""

import hashlib
import time
from pathlib import Path

import flask

from src import logs
from src.errors import SettingsError
from src.keys import RESERVED, SCOPES, Key, KeyFile, of_secret
from src.settings import Settings

LOOK_SECONDS = 1.0  # between two looks at the file
_SINGLE_ID = "0" * 32  # of the key that a setting gives: the same in every worker


class Keyring:
    def __init__(self, settings: Settings) -> None:
        """Raises SettingsError where keys are set and cannot be read."""
        secret = settings.read_api_key()
        self.configured = bool(secret or settings.api_keys_file)
        self.file = KeyFile(settings.keys_path) if settings.api_keys_file else None
        self._single = [of_secret(secret, name=RESERVED, id=_SINGLE_ID, scopes=list(SCOPES))] if secret else []
        self._keys: list[Key] = list(self._single)
        self._known: dict[bytes, Key] = {}  # by the SHA-256 of what was presented: a right key is hashed anew only once
        self._state: object = None
        self._look_at = 0.0
        if self.file:
            self._state = _state(self.file.path)
            self._keys += self.file.read()
            self._look_at = time.monotonic() + LOOK_SECONDS

    def find(self, presented: str) -> Key | None:
        """The key, if it is one of ours and has not expired."""
        if time.monotonic() >= self._look_at:
            self._follow()
        data = presented.encode("utf-8", "surrogateescape")
        key = self._search(data)
        if key is None and self._follow():  # another process may have made it just now
            key = self._search(data)
        return None if key is None or key.expired(time.time()) else key

    def look_again(self) -> None:
        """The file was changed by this process."""
        self._look_at = 0.0

    def _search(self, presented: bytes) -> Key | None:
        digest = hashlib.sha256(presented).digest()
        if (match := self._known.get(digest)) is None:
            for key in self._keys:  # all of them, wherever the right one stands
                if key.fits(presented):
                    match = key
            if match:
                self._known[digest] = match
        return match

    def _follow(self) -> bool:
        """Read the file again if it has changed; returns whether it had. A file that is wrong, or gone, leaves the old keys in force."""
        if self.file is None:
            return False
        self._look_at = time.monotonic() + LOOK_SECONDS
        state = _state(self.file.path)
        if state == self._state:
            return False
        self._state = state
        try:
            self._keys = self._single + self.file.read()
        except SettingsError as error:
            logs.app.error("The keys stay as they were: {}", error)
            return False
        self._known = {}
        logs.app.info("{} has changed: {} keys", self.file.path.name, len(self._keys) - len(self._single))
        return True


def _state(path: Path) -> object:
    """What differs once a file was changed; None where there is none."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size, stat.st_ino, stat.st_mode


def keyring() -> Keyring:
    """The app's."""
    app_keyring: Keyring = flask.current_app.extensions["keyring"]
    return app_keyring
