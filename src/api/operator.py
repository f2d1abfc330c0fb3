"""Who may change what lies on this machine's disk. Until there are keys for it: whoever is at this machine, and nobody else."""

import ipaddress
import re
import socket

import flask

from src.api.service import client_socket
from src.errors import OperatorOnly

_FORWARDED = ("Forwarded", "X-Forwarded-For", "X-Real-IP", "Via")


def require_operator() -> None:
    """Raises OperatorOnly unless the server listens on a loopback address only and the request comes from this machine itself:
    not through a proxy, and not from a web page under another name (DNS rebinding)."""
    request = flask.request
    client = client_socket()
    here = client is not None and client.family in (socket.AF_INET, socket.AF_INET6) and _is_loopback(client.getsockname()[0])
    if not here or not _is_loopback(request.remote_addr or "") or any(name in request.headers for name in _FORWARDED):
        raise OperatorOnly("Downloads are open only to this machine itself, on a loopback address (HOST=127.0.0.1) and without a proxy.")
    host = re.sub(r":\d+$", "", request.headers.get("Host", "")).strip("[]")
    if host != "localhost" and not _is_loopback(host):
        raise OperatorOnly("Downloads are open only to requests for localhost: this one names another host.")


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False
