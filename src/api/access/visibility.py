"""Which models a key sees: those that its list names, by name or alias. Without a key or a list, all."""

from collections.abc import Iterable, Sequence

from msgspec.structs import replace

from src.api.access.scopes import asker
from src.api.gateway import gateway
from src.catalog.aliases import matches, nearest
from src.errors import ModelNotFound
from src.protocol import ModelState


def listed() -> Sequence[str]:
    """The asker's list of models; empty where it sees all. The manager resolves a name among them."""
    key = asker()
    return key.models if key else ()


def visible(models: Iterable[ModelState]) -> list[ModelState]:
    """Those of the models, and of their adapters behind them, that the asker may know of."""
    return [each for model in models for each in (model, *_adapters(model)) if sees(each)]


def sees(model: ModelState) -> bool:
    """Whether the asker may know of it."""
    names = listed()
    return not names or any(_is_called(model, name) for name in names)


def require_visible(name: str) -> None:
    """Raises ModelNotFound for a model that the asker may not know of, just as for one that does not exist."""
    if listed():
        find(name, gateway().manager.status().models)


def find(name: str, models: Iterable[ModelState]) -> ModelState:
    """One of the models that the asker may know of, by name or alias. Raises ModelNotFound."""
    models = list(models)
    known = visible(models)
    if model := next((model for model in known if name == model.name or name in model.aliases), None):
        return model
    wildcard = nearest(name, [alias for model in models for alias in model.aliases])
    if model := next((model for model in known if wildcard in model.aliases), None):
        return model
    here = ", ".join(model.name for model in known) or "none"
    raise ModelNotFound(f"The model {name[:100]!r} does not exist. Models here: {here}.", param="model")


def _is_called(model: ModelState, name: str) -> bool:
    return name == model.name or any(matches(alias, name) for alias in model.aliases)


def _adapters(model: ModelState) -> list[ModelState]:
    """Each is asked for as if it were a model."""
    return [replace(model, name=name, parent=model.name, aliases=[], adapters=[], stats=None) for name in model.adapters]
