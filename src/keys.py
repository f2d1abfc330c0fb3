"""API keys: what each may do, and the file that tells them. Knows no HTTP. The keys themselves are stored nowhere.

A key is 256 random bits, so that its hash needs no slowness: nobody tries 2**255 of them at any speed, and scrypt would cost
every first request what it costs an attacker. The salt keeps equal keys from showing, and hashes from being made in advance.
"""

import contextlib
import fcntl
import hashlib
import hmac
import os
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from src import secret_files
from src.errors import InvalidValue, NotFound, SettingsError

Scope = Literal["inference", "monitor", "admin"]
SCOPES: tuple[Scope, ...] = ("inference", "monitor", "admin")
SETTING = "API_KEYS_FILE"
RESERVED = "API_KEY"  # the name that logs have for the key of that setting

Name = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")]
Limit = Annotated[int, msgspec.Meta(ge=0, le=2**31)]


class Key(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One key. Of limits, None is the server's own for every key, and 0 none at all."""

    name: Name
    salt: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{32}\Z")]
    hash: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
    id: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{32}\Z")] | None = None  # one that is rotated keeps it; older files have none
    scopes: list[Scope] = msgspec.field(default_factory=lambda: ["inference"])
    models: list[str] = []  # that it may see and ask; empty: all
    created: int = 0  # Unix seconds
    expires: int | None = None
    requests_per_minute: Limit | None = None
    tokens_per_minute: Limit | None = None
    concurrent: Limit | None = None

    @property
    def owner(self) -> str:
        """Whose answers are this key's: not those of a revoked key of the same name."""
        return f"{self.name}:{self.id or self.salt}"

    def may(self, scope: Scope) -> bool:
        """admin may everything."""
        return scope in self.scopes or "admin" in self.scopes

    def expired(self, now: float) -> bool:
        return self.expires is not None and now >= self.expires

    def fits(self, presented: bytes) -> bool:
        """Takes as long for a wrong key as for the right one."""
        return hmac.compare_digest(_hash(presented, self.salt), self.hash)

    def described(self) -> dict[str, Any]:
        """All that may be shown of it."""
        return {name: value for name, value in msgspec.structs.asdict(self).items() if name not in ("salt", "hash", "id")}


class _Contents(msgspec.Struct, forbid_unknown_fields=True):
    keys: list[Key]


def of_secret(secret: str, **what: Any) -> Key:
    """The key that a secret is."""
    salt = secrets.token_hex(16)
    return Key(salt=salt, hash=_hash(secret.encode(), salt), **what)


class KeyFile:
    """The file of keys. Several processes may change it: each change is made under a lock and appears whole."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> list[Key]:
        """Raises SettingsError, in one line, where the file is not there, open to others, or no file of keys."""
        try:
            text = secret_files.read(self.path, SETTING, secret_files.OTHERS)
        except SettingsError as error:
            hint = "" if self.path.exists() else ". Make a first key: scripts/manage_keys.py add NAME"
            raise SettingsError(f"{error}{hint}") from error
        try:
            keys = msgspec.json.decode(text, type=_Contents).keys
        except msgspec.MsgspecError as error:
            raise SettingsError(f"{SETTING}={str(self.path)!r} is wrong: {error}") from error
        if len({key.name for key in keys}) < len(keys):
            raise SettingsError(f"{SETTING}={str(self.path)!r} is wrong: two of its keys have the same name")
        return keys

    def add(self, name: str, **what: Any) -> tuple[str, Key]:
        """A new key and what is kept of it. Raises InvalidValue."""
        if name.upper() == RESERVED:
            raise InvalidValue(
                f"name is wrong: {RESERVED} stands for the key of the setting {RESERVED}. Choose another name.", param="name"
            )
        with self._changing() as keys:
            if name in keys:
                raise InvalidValue(f"There is a key {name} already. Revoke or rotate it, or choose another name.", param="name")
            secret, keys[name] = _make(name=name, id=secrets.token_hex(16), created=int(time.time()), **what)
        return secret, keys[name]

    def revoke(self, name: str) -> None:
        """Raises NotFound."""
        with self._changing() as keys:
            _known(keys, name)
            del keys[name]

    def rotate(self, name: str) -> tuple[str, Key]:
        """A new secret for a key; the old one is void at once. Raises NotFound."""
        with self._changing() as keys:
            before = _known(keys, name)
            kept = msgspec.structs.asdict(before)
            secret, keys[name] = _make(**{**kept, "id": before.id or before.salt, "created": int(time.time())})
        return secret, keys[name]

    @contextlib.contextmanager
    def _changing(self) -> Iterator[dict[str, Key]]:
        """The keys by name; how they are left is written. A file that is not there yet holds none."""
        descriptor = os.open(self.path.with_name(f".{self.path.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            keys = {key.name: key for key in self.read()} if self.path.exists() else {}
            yield keys
            secret_files.write(self.path, msgspec.json.format(msgspec.json.encode(_Contents(list(keys.values())))) + b"\n")
        finally:
            os.close(descriptor)


def _make(**what: Any) -> tuple[str, Key]:
    """A new secret and its key. Raises InvalidValue for what is no name, scope or limit."""
    secret = "sk-" + secrets.token_urlsafe(32)
    salt = secrets.token_hex(16)
    try:
        key = msgspec.convert({**what, "salt": salt, "hash": _hash(secret.encode(), salt)}, Key)
    except msgspec.ValidationError as error:
        reason, _, path = str(error).partition(" - at `$.")
        field = path.split("`")[0].split("[")[0] or None
        if field == "name":
            reason = "expected up to 64 letters, digits, '.', '_' and '-', a letter or digit first"
        raise InvalidValue(f"{field or 'The key'} is wrong: {reason}.", param=field) from error
    if not key.scopes:
        raise InvalidValue("scopes is wrong: expected at least one of inference, monitor, admin.", param="scopes")
    if key.models and key.may("admin"):
        raise InvalidValue("models is wrong: a key of scope admin may ask all models.", param="models")
    return secret, key


def _known(keys: dict[str, Key], name: str) -> Key:
    if name not in keys:
        raise NotFound(f"There is no key {name[:100]!r}. Keys here: {', '.join(sorted(keys)) or 'none'}.", param="name")
    return keys[name]


def _hash(presented: bytes, salt: str) -> str:
    return hashlib.blake2b(presented, salt=bytes.fromhex(salt), digest_size=32).hexdigest()
