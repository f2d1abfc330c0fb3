"""The line in audit.log for each act of an admin: who, what, from where, and how it ended. Knows no act itself."""

from typing import Any

import flask

from src import logs
from src.api.access import asker, scope_of
from src.api.record import record
from src.api.service import service


def note(**facts: str) -> None:
    """What the act at hand is about. Never a key."""
    flask.g.audit = {what: fact[:200] for what, fact in facts.items()}


def write(response: flask.Response) -> flask.Response:
    """After a request that changes something, or should have, of somebody who is known."""
    request, of, key = flask.request, record(), asker()
    known = key is not None or not service().keyring.configured
    if request.method in ("POST", "DELETE") and known and request.url_rule and scope_of(request.endpoint) == "admin":
        facts: dict[str, Any] = flask.g.get("audit", {})
        by = key.name if key else None
        logs.write(logs.audit, act=of.route, by=by, client=of.client, **facts, status=response.status_code, error=of.error, id=of.id)
    return response
