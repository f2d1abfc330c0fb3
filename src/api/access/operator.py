"""Who may change models, keys and logs while there are no keys: whoever is at this machine, and for most of it runs this server."""

import os
import shlex
import socket

import flask

from src import operator_token
from src.api.access.address import is_loopback
from src.api.access.browser import from_foreign_page
from src.api.gateway import client_socket, gateway
from src.errors import OperatorOnly

_FORWARDED = ("Forwarded", "X-Forwarded-For", "X-Real-IP", "Via")
_REMEDY = "Make a key with scripts/manage_keys.py to do it from elsewhere."


def require_this_machine() -> None:
    """Raises OperatorOnly unless the request comes from this machine itself, over a loopback address: not through a proxy, not from
    a web page, and not under another name (DNS rebinding). A proxy that adds no header and speaks HTTP/1.1 is not noticed."""
    request = flask.request
    client = client_socket()
    here = client is not None and client.family in (socket.AF_INET, socket.AF_INET6) and is_loopback(client.getsockname()[0])
    # HTTP/1.0 is what nginx speaks unless it is told otherwise.
    forwarded = any(name in request.headers for name in _FORWARDED) or request.environ.get("SERVER_PROTOCOL") == "HTTP/1.0"
    if not here or not is_loopback(request.remote_addr or "") or forwarded:
        raise OperatorOnly(
            f"Without keys, this is open only to this machine itself, on a loopback address, by HTTP/1.1 and without a proxy. {_REMEDY}"
        )
    host = request.headers.get("Host", "").rpartition("]")[0] or request.headers.get("Host", "").partition(":")[0]
    if (host != "localhost" and not is_loopback(host)) or from_foreign_page():
        raise OperatorOnly("Without keys, this is open only to requests for localhost that no web page of another origin sends.")


def require_operator(presented: str) -> None:
    """The same, and the operator's token, which tells the users of one machine apart. Raises OperatorOnly, which says where it lies."""
    require_this_machine()
    settings = gateway().settings
    if settings.admin_from_loopback or operator_token.fits(settings.run_dir, presented):
        return
    path = os.path.join(os.path.abspath(settings.run_dir), operator_token.FILE)
    raise OperatorOnly(
        f"Without keys, this needs the operator's token, which only the server's user can read, in {path}. With curl: "
        f'-H "Authorization: Bearer $(cat {shlex.quote(path)})". ADMIN_FROM_LOOPBACK=true opens it to every user of this machine.'
    )
