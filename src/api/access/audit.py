"""The line in audit.log for each act of an admin: who, what, from where, and how it ended."""

from typing import Any

import flask

from src import logs
from src.api.access.keyring import keyring
from src.api.access.scopes import asker, scope_of
from src.api.observe.record import record


def note(**facts: str) -> None:
    """What the act at hand is about. Never a key."""
    flask.g.audit = {what: fact[:200] for what, fact in facts.items()}


def write(response: flask.Response) -> flask.Response:
    """After a request that changes something, or should have, of somebody who is known."""
    request, entry, key = flask.request, record(), asker()
    known = key is not None or not keyring().configured
    if request.method in ("POST", "DELETE") and known and request.url_rule and scope_of(request.endpoint) == "admin":
        facts: dict[str, Any] = flask.g.get("audit", {})
        by = key.name if key else None
        logs.write(
            logs.audit, act=entry.route, by=by, client=entry.client, **facts, status=response.status_code, error=entry.error, id=entry.id
        )
    return response
