"""A request's body from bytes to a checked object; the fields it does not know are named in a header, or refused."""

import re
from itertools import islice
from typing import Any, TypeVar

import flask
import msgspec
from gevent import Timeout
from gunicorn.http.errors import ParseException
from werkzeug.exceptions import ClientDisconnected, RequestEntityTooLarge, RequestTimeout, UnsupportedMediaType

from src.api.access.bodies import Held
from src.api.gateway import gateway
from src.api.schema import Strict, parse, unknown
from src.api.schema.nesting import Outline
from src.errors import FIELD, InvalidJSON, UnknownField
from src.settings import Limits

PIECE = 256 * 1024  # bytes of a body that are read before they are counted
MAX_NAMES = 20
MAX_NAME_CHARACTERS = 64
_NOT_FOR_A_HEADER = re.compile(r"[^A-Za-z0-9_.\[\]-]")

Request = TypeVar("Request", bound=Strict)


def accept(kind: type[Request]) -> Request:
    """The body as `kind`. Raises what read_json() and parse() raise, and UnknownField where STRICT_FIELDS is set."""
    return check(kind, read_body())


def read_body() -> dict[str, Any]:
    return read_json(gateway().settings)


def check(kind: type[Request], body: dict[str, Any]) -> Request:
    """As accept, for a route that has to look at the body to know its kind."""
    parsed: Request = parse(kind, body, gateway().settings)
    ignored = [_shown(name) for name in islice(unknown(parsed), MAX_NAMES + 1)]
    if ignored and gateway().settings.strict_fields:
        raise UnknownField(f"Unknown field, or one without effect: {FIELD}. (STRICT_FIELDS is on.)", ignored[0])
    flask.g.ignored_fields = ignored
    flask.g.field_names = kind.names  # for errors of what comes after: see failures.py
    return parsed


def name_ignored(response: flask.Response) -> flask.Response:
    """After a request's function: X-Ignored-Fields, where there are any."""
    if names := flask.g.get("ignored_fields"):
        response.headers["X-Ignored-Fields"] = ", ".join(names[:MAX_NAMES]) + (", ..." if names[MAX_NAMES:] else "")
    return response


def read_json(limits: Limits) -> dict[str, Any]:
    """The body as a dict, which has BODY_TIMEOUT to arrive.

    msgspec refuses what the standard library lets through: NaN, Infinity, lone surrogates. Raises InvalidJSON, TooManyRequests, and
    werkzeug's errors for a wrong media type, a late body or one that is too large.
    """
    request = flask.request
    if request.mimetype != "application/json":
        raise UnsupportedMediaType
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise UnsupportedMediaType
    # gevent sets no bound on a body that trickles in; only a timeout around the whole read does.
    try:
        with Timeout(limits.body_timeout, RequestTimeout):
            data = _received()
            rest = request.environ["wsgi.input"].read(1)
    except (ParseException, ClientDisconnected):
        # Not `from error`: its text quotes the body.
        raise InvalidJSON("The body ended early, or its chunks are too small, or not valid for Transfer-Encoding: chunked.") from None
    if rest:  # werkzeug cuts a chunked body off at its limit and says nothing
        raise RequestEntityTooLarge
    if request.content_length is not None and len(data) != request.content_length:
        raise InvalidJSON(f"The body ended after {len(data)} of the {request.content_length} bytes that Content-Length announced.")
    outline = Outline(data)
    # Millions of them take seconds to decode and to check, and all streams would wait.
    if outline.has_more_containers(limits.max_json_containers):
        raise InvalidJSON(f"The body has too many objects and arrays: MAX_JSON_CONTAINERS allows {limits.max_json_containers}.")
    if outline.has_more_values(limits.max_json_values):
        raise InvalidJSON(f"The body has too many values: MAX_JSON_VALUES allows {limits.max_json_values}.")
    try:
        body = msgspec.json.decode(data)
    except (msgspec.MsgspecError, RecursionError, UnicodeError, OverflowError) as error:
        if isinstance(error, RecursionError):
            raise _too_deep(limits) from error
        raise InvalidJSON(f"The body is not valid JSON: {str(error)[:200]}.") from error
    if not isinstance(body, dict):
        raise InvalidJSON("The body must be a JSON object.")
    if outline.is_deeper(limits.max_json_depth):
        raise _too_deep(limits)
    return body


def _received() -> bytes:
    """The bytes of the body. Raises TooManyRequests where this worker holds too many already, and what werkzeug and Gunicorn raise."""
    held, pieces = Held(), []
    left = gateway().settings.max_body_bytes  # to ask for more is an error, also where there is none
    while left and (piece := flask.request.stream.read(min(PIECE, left))):
        held.take(len(piece))
        pieces.append(piece)
        left -= len(piece)
    return b"".join(pieces)


def _too_deep(limits: Limits) -> InvalidJSON:
    return InvalidJSON(f"The body is nested too deeply: MAX_JSON_DEPTH allows {limits.max_json_depth} levels.")


def _shown(name: str) -> str:
    """A name that a client made up, so that it can break no header and fill no log."""
    return _NOT_FOR_A_HEADER.sub("?", name[:MAX_NAME_CHARACTERS]) or "?"
