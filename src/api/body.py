"""Bytes of a request's body to a JSON object. Knows no field of it."""

from typing import Any

import flask
import msgspec
from gevent import Timeout
from gunicorn.http.errors import ParseException
from werkzeug.exceptions import ClientDisconnected, RequestEntityTooLarge, RequestTimeout, UnsupportedMediaType

from src.api.nesting import has_more_containers, is_deeper
from src.errors import InvalidJSON


def read_json(timeout: float, depth: int, containers: int) -> dict[str, Any]:
    """The body as a dict; it has `timeout` seconds to arrive, and may be nested `depth` levels, of so many objects and lists.

    msgspec refuses what the standard library lets through: NaN, Infinity, lone surrogates. Raises InvalidJSON, and
    werkzeug's errors for a wrong media type, a late body or one that is too large.
    """
    request = flask.request
    if request.mimetype != "application/json":
        raise UnsupportedMediaType
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise UnsupportedMediaType
    # gevent sets no bound on a body that trickles in; only a timeout around the whole read does.
    try:
        with Timeout(timeout, RequestTimeout):
            data = request.get_data(cache=False)
            rest = request.environ["wsgi.input"].read(1)
    except (ParseException, ClientDisconnected):
        # Not `from error`: its text quotes the body.
        raise InvalidJSON("The body broke off, or its chunks are not what Transfer-Encoding: chunked asks for.") from None
    if rest:  # werkzeug cuts a chunked body off at its limit and says nothing
        raise RequestEntityTooLarge
    if request.content_length is not None and len(data) != request.content_length:
        raise InvalidJSON(f"The body ended after {len(data)} of the {request.content_length} bytes that Content-Length promised.")
    if has_more_containers(data, containers):  # millions of them take seconds to decode, and all streams would wait
        raise InvalidJSON(f"The body has more objects and lists than the {containers} that MAX_JSON_CONTAINERS allows.")
    try:
        body = msgspec.json.decode(data)
    except (msgspec.MsgspecError, RecursionError, UnicodeError, OverflowError) as error:
        if isinstance(error, RecursionError):
            raise _too_deep(depth) from error
        raise InvalidJSON(f"The body is not valid JSON: {str(error)[:200]}.") from error
    if not isinstance(body, dict):
        raise InvalidJSON("The body has to be a JSON object.")
    if is_deeper(body, depth):
        raise _too_deep(depth)
    return body


def _too_deep(depth: int) -> InvalidJSON:
    return InvalidJSON(f"The body is nested deeper than the {depth} levels that MAX_JSON_DEPTH allows.")
