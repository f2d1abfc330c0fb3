"""What every route needs at hand: the settings, and the way to the manager."""

import math
import socket
import time
from collections.abc import Callable, Iterator

import flask
import msgspec

from src.client.manager import ManagerClient
from src.settings import Settings


class Gateway(msgspec.Struct, frozen=True):
    settings: Settings
    manager: ManagerClient

    def deadline(self, timeout: float | None = None) -> float:
        """When a request that begins now must have ended, in time.monotonic() seconds. `timeout`: its own, in seconds."""
        return time.monotonic() + min(self.settings.request_timeout, timeout or math.inf)


def gateway() -> Gateway:
    """The app's."""
    app_gateway: Gateway = flask.current_app.extensions["gateway"]
    return app_gateway


def client_socket() -> socket.socket | None:
    """The HTTP client's socket, to notice when it hangs up; None outside Gunicorn."""
    client: socket.socket | None = flask.request.environ.get("gunicorn.socket")
    return client


def json_response(value: object) -> flask.Response:
    return flask.Response(msgspec.json.encode(value), mimetype="application/json")


def event_stream(frames: Iterator[bytes], close: Callable[[], None]) -> flask.Response:
    """Server-sent events. `close` is called when the response ends, also where its client hung up before the first byte: a
    generator that was never begun runs no `finally`."""
    response = flask.Response(frames, mimetype="text/event-stream")
    response.call_on_close(close)
    response.headers["Cache-Control"] = "no-cache"
    response.headers["X-Accel-Buffering"] = "no"  # nginx would collect the events otherwise
    return response
