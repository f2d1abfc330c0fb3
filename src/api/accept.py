"""The request at hand to a checked one; what it has beyond that is named in a header, or refused. Knows no field."""

import re
from itertools import islice
from typing import Any, TypeVar

import flask

from src.api.body import read_json
from src.api.schema import Strict, parse, unknown
from src.api.service import service
from src.errors import UnknownField

MAX_NAMES = 20
MAX_NAME_CHARACTERS = 64
_NOT_FOR_A_HEADER = re.compile(r"[^A-Za-z0-9_.\[\]-]")

Request = TypeVar("Request", bound=Strict)


def accept(kind: type[Request]) -> Request:
    """The body as `kind`. Raises what reading and parsing it raise, and UnknownField where STRICT_FIELDS is set."""
    return check(kind, read_body())


def read_body() -> dict[str, Any]:
    settings = service().settings
    return read_json(settings.body_timeout, settings.max_json_depth, settings.max_json_containers)


def check(kind: type[Request], body: dict[str, Any]) -> Request:
    """As accept, for a route that has to look at the body to know its kind."""
    parsed: Request = parse(kind, body, service().settings)
    ignored = [_shown(name) for name in islice(unknown(parsed), MAX_NAMES + 1)]
    if ignored and service().settings.strict_fields:
        raise UnknownField(f"{ignored[0]} is no field of this route, and STRICT_FIELDS refuses such. Leave it out.", param=ignored[0])
    flask.g.ignored_fields = ignored
    return parsed


def name_ignored(response: flask.Response) -> flask.Response:
    """After a request's function: X-Ignored-Fields, where there are any."""
    if names := flask.g.get("ignored_fields"):
        response.headers["X-Ignored-Fields"] = ", ".join(names[:MAX_NAMES]) + (", ..." if names[MAX_NAMES:] else "")
    return response


def _shown(name: str) -> str:
    """A name as a client may have made it up, so that it can break no header and fill no log."""
    return _NOT_FOR_A_HEADER.sub("?", name[:MAX_NAME_CHARACTERS]) or "?"
