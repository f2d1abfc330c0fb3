"""Who asks, and whether they may: keys and the scopes that routes need."""

from collections.abc import Callable
from typing import TypeVar

import flask

from src.api.access.address import network_of
from src.api.access.keyring import keyring
from src.api.access.operator import require_operator, require_this_machine
from src.api.gateway import gateway
from src.api.observe.record import record
from src.errors import InsufficientScope, InvalidAPIKey
from src.keys import Key, Scope

View = TypeVar("View", bound=Callable[..., object])


def open_to_all(view: View) -> View:
    """This route needs no key."""
    view.open_to_all = True  # type: ignore[attr-defined]
    return view


def needs(scope: Scope, *, unless_off: str = "", without_token: bool = False) -> Callable[[View], View]:
    """This route needs a key of another scope than inference; no key at all where the setting `unless_off` is false.

    `without_token`: while there are no keys, an admin's route that asks this machine's users for no token.
    """

    def mark(view: View) -> View:
        view.scope, view.unless_off, view.without_token = scope, unless_off, without_token  # type: ignore[attr-defined]
        return view

    return mark


def scope_of(endpoint: str | None) -> Scope | None:
    """What a route needs; None where it is open. A route that says nothing, and one that does not exist, need a key too."""
    view = flask.current_app.view_functions.get(endpoint or "")
    if getattr(view, "open_to_all", False):
        return None
    setting = getattr(view, "unless_off", "")
    if setting and not getattr(gateway().settings, setting):
        return None
    scope: Scope = getattr(view, "scope", "inference")
    return scope


def check() -> None:
    """Before a request. Raises InvalidAPIKey, InsufficientScope, OperatorOnly."""
    scope = scope_of(flask.request.endpoint)
    presented = _presented()
    if not keyring().configured:
        if scope == "admin":
            _require_operator(presented)
        return
    key = keyring().find(presented) if presented or scope else None
    if key is not None:
        flask.g.key = key
        record().key = key.name
    if scope is None:
        return
    if key is None:
        # One answer for all: no key, a wrong one, one that has expired.
        raise InvalidAPIKey("This server needs an API key: send a valid one as Authorization: Bearer KEY, or as x-api-key.")
    if not key.may(scope):
        raise InsufficientScope(f"The key {key.name} may not do this: it needs the scope {scope}.")


def _require_operator(presented: str) -> None:
    view = flask.current_app.view_functions.get(flask.request.endpoint or "")
    if getattr(view, "without_token", False):
        require_this_machine()
    else:
        require_operator(presented)


def asker() -> Key | None:
    """The key of the request at hand; None where there are none, or none is needed."""
    key: Key | None = flask.g.get("key")
    return key


def owner() -> str:
    """Whose answers and responses those of the request at hand are; "" where there are no keys."""
    key = asker()
    return key.owner if key else ""


def sharer() -> str:
    """Who the request at hand counts for where models are shared: its key by name, or where there are none, its client's address."""
    key = asker()
    return key.name if key else network_of(record().client or "")


def _presented() -> str:
    """The key as it was sent; empty where none was."""
    scheme, _, value = flask.request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return value.strip()
    return flask.request.headers.get("X-API-Key", "")
