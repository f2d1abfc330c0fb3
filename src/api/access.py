"""Who asks, and whether they may: keys, scopes, and which models a key sees. Knows no engine and no limit."""

from collections.abc import Callable, Iterable
from typing import TypeVar

import flask
from msgspec.structs import replace

from src.api.operator import require_operator
from src.api.record import record
from src.api.service import service
from src.errors import InsufficientScope, InvalidAPIKey, ModelNotFound
from src.keys import Key, Scope
from src.protocol import ModelState

View = TypeVar("View", bound=Callable[..., object])


def open_to_all(view: View) -> View:
    """This route asks for no key."""
    view.open_to_all = True  # type: ignore[attr-defined]
    return view


def needs(scope: Scope, *, unless_off: str = "") -> Callable[[View], View]:
    """This route needs a key of another scope than inference; no key at all where the setting `unless_off` is false."""

    def mark(view: View) -> View:
        view.scope, view.unless_off = scope, unless_off  # type: ignore[attr-defined]
        return view

    return mark


def scope_of(endpoint: str | None) -> Scope | None:
    """What a route needs; None where it is open. A route that says nothing, and one that does not exist, need a key too."""
    view = flask.current_app.view_functions.get(endpoint or "")
    if getattr(view, "open_to_all", False):
        return None
    setting = getattr(view, "unless_off", "")
    if setting and not getattr(service().settings, setting):
        return None
    scope: Scope = getattr(view, "scope", "inference")
    return scope


def check() -> None:
    """Before a request. Raises InvalidAPIKey, InsufficientScope, OperatorOnly."""
    scope = scope_of(flask.request.endpoint)
    keyring = service().keyring
    if not keyring.configured:
        if scope == "admin":
            require_operator()
        return
    presented = _presented()
    key = keyring.find(presented) if presented or scope else None
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


def asker() -> Key | None:
    """The key of the request at hand; None where there are none, or none is needed."""
    key: Key | None = flask.g.get("key")
    return key


def visible(models: Iterable[ModelState]) -> list[ModelState]:
    """Those of the models, and of their adapters behind them, that the asker may know of."""
    served = [each for model in models for each in (model, *_adapters(model))]
    key = asker()
    if key is None or not key.models:
        return served
    return [model for model in served if {model.name, *model.aliases} & set(key.models)]


def see(name: str | None) -> None:
    """Raises ModelNotFound for a model that the asker may not know of, just as for one that does not exist. None: the default one."""
    key = asker()
    if key is None or not key.models:
        return
    status = service().manager.status()
    find(status.default_model if name is None else name, status.models)


def find(name: str | None, models: Iterable[ModelState]) -> ModelState:
    """One of the models that the asker may know of, by name or alias. Raises ModelNotFound."""
    known = visible(models)
    for model in known:
        if name == model.name or name in model.aliases:
            return model
    here = ", ".join(model.name for model in known) or "none"
    if name is None:
        raise ModelNotFound(f"The request names no model. Models here: {here}.", param="model")
    raise ModelNotFound(f"The model {name[:100]!r} does not exist. Models here: {here}.", param="model")


def _adapters(model: ModelState) -> list[ModelState]:
    """Each is asked for as if it were a model."""
    return [replace(model, name=name, parent=model.name, aliases=[], adapters=[], stats=None) for name in model.adapters]


def _presented() -> str:
    """The key as it was sent; empty where none was."""
    scheme, _, value = flask.request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return value.strip()
    return flask.request.headers.get("X-API-Key", "")
