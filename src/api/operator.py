"""Who may change models, keys and logs while there are no keys: whoever is at this machine, and nobody else."""

import socket

import flask

from src.api.address import is_loopback
from src.api.browser import from_foreign_page
from src.api.service import client_socket
from src.errors import OperatorOnly

_FORWARDED = ("Forwarded", "X-Forwarded-For", "X-Real-IP", "Via")
_REMEDY = "Make a key with scripts/manage_keys.py to do it from elsewhere."


def require_operator() -> None:
    """Raises OperatorOnly unless the request comes from this machine itself, over a loopback address: not through a proxy, not from
    a web page, and not under another name (DNS rebinding)."""
    request = flask.request
    client = client_socket()
    here = client is not None and client.family in (socket.AF_INET, socket.AF_INET6) and is_loopback(client.getsockname()[0])
    if not here or not is_loopback(request.remote_addr or "") or any(name in request.headers for name in _FORWARDED):
        raise OperatorOnly(f"Without keys, this is open only to this machine itself, on a loopback address and without a proxy. {_REMEDY}")
    host = request.headers.get("Host", "").rpartition("]")[0] or request.headers.get("Host", "").partition(":")[0]
    if (host != "localhost" and not is_loopback(host)) or from_foreign_page():
        raise OperatorOnly("Without keys, this is open only to requests for localhost that no web page of another origin sends.")
