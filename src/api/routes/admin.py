"""API keys and the log level over HTTP."""

import time
from typing import Any

import flask

from src import logs
from src.api.access.audit import note
from src.api.access.keyring import keyring
from src.api.access.scopes import needs
from src.api.body import accept
from src.api.gateway import gateway, json_response
from src.api.schema.admin import KeyRequest, LogLevelRequest
from src.errors import InvalidValue
from src.keys import Key, KeyFile

blueprint = flask.Blueprint("admin", __name__)


@blueprint.get("/v1/admin/log-level")
@needs("admin")
def log_level() -> flask.Response:
    return json_response({"level": logs.level()})


@blueprint.post("/v1/admin/log-level")
@needs("admin")
def set_log_level() -> flask.Response:
    """In every process of this server within a second, until it stops."""
    request = accept(LogLevelRequest)
    logs.change_level(gateway().settings, request.level)
    note(level=request.level)
    return log_level()


@blueprint.get("/v1/admin/keys")
@needs("admin")
def list_keys() -> flask.Response:
    return json_response({"object": "list", "data": [_public(key) for key in _file().read()]})


@blueprint.post("/v1/admin/keys")
@needs("admin")
def add_key() -> flask.Response:
    """The only answer that shows the key."""
    request = accept(KeyRequest)
    note(name=request.name)
    secret, key = _file().add(**request.model_dump(exclude_none=True))
    keyring().look_again()
    return json_response({**_public(key), "key": secret})


@blueprint.post("/v1/admin/keys/<name>/rotate")
@needs("admin")
def rotate_key(name: str) -> flask.Response:
    """Gives the name a new key. The old one stops working within a second."""
    note(name=name)
    secret, key = _file().rotate(name)
    keyring().look_again()
    return json_response({**_public(key), "key": secret})


@blueprint.delete("/v1/admin/keys/<name>")
@needs("admin")
def revoke_key(name: str) -> flask.Response:
    """The key stops working within a second, in every worker. Running requests continue."""
    note(name=name)
    _file().revoke(name)
    keyring().look_again()
    return json_response({"object": "key", "name": name, "deleted": True})


def _file() -> KeyFile:
    file = keyring().file
    if file is None:
        raise InvalidValue("This server has no key file. Set API_KEYS_FILE, create a first key with scripts/manage_keys.py, and restart.")
    return file


def _public(key: Key) -> dict[str, Any]:
    return {"object": "key", **key.described(), "expired": key.expired(time.time())}
