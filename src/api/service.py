"""What every route needs at hand: the settings, the keys, and the way to the manager."""

import math
import socket
import time

import flask
import msgspec

from src.api.address import Proxies
from src.api.keyring import Keyring
from src.api.replay import Store
from src.api.response_store import ResponseStore
from src.client import ManagerClient
from src.settings import Settings


class Service(msgspec.Struct, frozen=True):
    settings: Settings
    manager: ManagerClient
    keyring: Keyring
    proxies: Proxies
    kept: Store
    responses: ResponseStore

    def deadline(self, timeout: float | None = None) -> float:
        """When a request that begins now has to be through, in time.monotonic() seconds. `timeout`: its own."""
        return time.monotonic() + min(self.settings.request_timeout, timeout or math.inf)


def service() -> Service:
    """The service of the app at hand."""
    of: Service = flask.current_app.extensions["service"]
    return of


def client_socket() -> socket.socket | None:
    """The HTTP client's socket, to notice when it hangs up; None outside Gunicorn."""
    client: socket.socket | None = flask.request.environ.get("gunicorn.socket")
    return client


def json_response(value: object) -> flask.Response:
    return flask.Response(msgspec.json.encode(value), mimetype="application/json")
