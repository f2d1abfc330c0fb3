"""What web pages may do here: which names the Host header may have (DNS rebinding), and from which origins pages may ask (CORS).

Pages of other origins are refused unless CORS_ORIGINS names theirs. Programs send no Origin and are not concerned.
"""

import re
import socket

import flask

from src.api.access.address import is_loopback
from src.api.gateway import client_socket
from src.errors import HostNotAllowed, OriginNotAllowed
from src.host_names import address_of, is_nobodys, name_of

_HEADER_NAMES = re.compile(r"[A-Za-z0-9_\-, ]{0,2000}")
_EXPOSED = (
    "X-Request-ID, Retry-After, X-RateLimit-Limit-Requests, X-RateLimit-Remaining-Requests, X-RateLimit-Reset-Requests, "
    "X-RateLimit-Limit-Tokens, X-RateLimit-Remaining-Tokens, X-RateLimit-Reset-Tokens"
)


class Browsers:
    def __init__(self, hosts: set[str], origins: set[str]) -> None:
        """In lower case; {"*"}: any."""
        self._hosts, self._origins = hosts, origins

    def check(self) -> flask.Response | None:
        """Before a request: the answer to a preflight. Raises HostNotAllowed, OriginNotAllowed."""
        request = flask.request
        self._check_host(request.headers.get("Host", ""))
        origin = request.headers.get("Origin")
        if not from_foreign_page() or self._allows(origin or ""):
            preflight = request.method == "OPTIONS" and origin and "Access-Control-Request-Method" in request.headers
            return flask.Response(status=204) if preflight and not _same_origin(origin or "") else None
        if request.method in ("GET", "HEAD"):
            return None  # it changes nothing, and without our leave the browser keeps the answer from the page
        raise OriginNotAllowed("Web pages of this origin may not use this server. Its operator can name the origin in CORS_ORIGINS.")

    def permit(self, response: flask.Response) -> flask.Response:
        """After a request: the headers by which a browser lets the page have the answer."""
        request = flask.request
        if self._origins - {"*"}:
            response.vary.add("Origin")
        origin = request.headers.get("Origin")
        if origin is None or not self._allows(origin):
            return response
        headers = response.headers
        if "*" in self._origins:
            headers["Access-Control-Allow-Origin"] = "*"  # and never credentials with it
        else:
            headers["Access-Control-Allow-Origin"] = origin
            headers["Access-Control-Allow-Credentials"] = "true"
        headers["Access-Control-Expose-Headers"] = _EXPOSED
        if request.method == "OPTIONS":
            asked = request.headers.get("Access-Control-Request-Headers", "")
            headers["Access-Control-Allow-Methods"] = "GET, POST, DELETE"
            headers["Access-Control-Allow-Headers"] = asked if _HEADER_NAMES.fullmatch(asked) else "Authorization, Content-Type"
            headers["Access-Control-Max-Age"] = "600"
        return response

    def _check_host(self, host: str) -> None:
        """A page of evil.example whose name was made to lead to 127.0.0.1 asks for Host: evil.example. Programs without a Host
        header are no browsers. Elsewhere than on loopback, names are checked where ALLOWED_HOSTS gives some."""
        client = client_socket()
        local = client.getsockname()[0] if client is not None and client.family in (socket.AF_INET, socket.AF_INET6) else ""
        on_loopback = client is None or is_loopback(local)
        if not host or "*" in self._hosts or not (on_loopback or self._hosts):
            return
        name = name_of(host)
        address = address_of(local)
        is_near = on_loopback or (address is not None and address.is_private)
        known = name in ("localhost", local.lower()) or name in self._hosts or is_loopback(name) or (is_near and is_nobodys(name))
        if not known:
            raise HostNotAllowed("Host header not allowed. Use localhost, or add this name to ALLOWED_HOSTS.")

    def _allows(self, origin: str) -> bool:
        return "*" in self._origins or origin.lower() in self._origins


def from_foreign_page() -> bool:
    """Whether a web page asks that is not this server's own. Sec-Fetch-Site is a browser's word, which no page can change."""
    headers = flask.request.headers
    origin = headers.get("Origin")
    return (origin is not None and not _same_origin(origin)) or headers.get("Sec-Fetch-Site") in ("cross-site", "same-site")


def _same_origin(origin: str) -> bool:
    """By name and port: behind a proxy that does TLS, the scheme is not ours to know."""
    return origin.partition("://")[2].lower() == flask.request.headers.get("Host", "").lower() != ""
