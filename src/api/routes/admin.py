"""Keys and the log level by HTTP. Knows no model."""

import time
from typing import Any

import flask

from src import logs
from src.api.accept import accept
from src.api.access import needs
from src.api.audit import note
from src.api.schema import KeyRequest, LogLevelRequest
from src.api.service import json_response, service
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
    """In every process of this server, within a second; till it stops."""
    request = accept(LogLevelRequest)
    logs.change_level(service().settings, request.level)
    note(level=request.level)
    return log_level()


@blueprint.get("/v1/admin/keys")
@needs("admin")
def list_keys() -> flask.Response:
    return json_response({"object": "list", "data": [_told(key) for key in _file().read()]})


@blueprint.post("/v1/admin/keys")
@needs("admin")
def add_key() -> flask.Response:
    """The one time that the key is shown."""
    request = accept(KeyRequest)
    note(name=request.name)
    secret, key = _file().add(**request.model_dump(exclude_none=True))
    service().keyring.look_again()
    return json_response({**_told(key), "key": secret})


@blueprint.post("/v1/admin/keys/<name>/rotate")
@needs("admin")
def rotate_key(name: str) -> flask.Response:
    """A new key under the old name; the old one is void within a second."""
    note(name=name)
    secret, key = _file().rotate(name)
    service().keyring.look_again()
    return json_response({**_told(key), "key": secret})


@blueprint.delete("/v1/admin/keys/<name>")
@needs("admin")
def revoke_key(name: str) -> flask.Response:
    """Void within a second, in every worker. Requests that run go on."""
    note(name=name)
    _file().revoke(name)
    service().keyring.look_again()
    return json_response({"object": "key", "name": name, "deleted": True})


def _file() -> KeyFile:
    file = service().keyring.file
    if file is None:
        raise InvalidValue("This server has no file of keys. Set API_KEYS_FILE, make a first key with scripts/manage_keys.py, and restart.")
    return file


def _told(key: Key) -> dict[str, Any]:
    return {"object": "key", **key.described(), "expired": key.expired(time.time())}
