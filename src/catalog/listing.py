"""The models that one look at the folder found, by every name that requests may use."""

from collections.abc import Collection, Mapping
from types import MappingProxyType

from src.catalog.aliases import WILDCARD, nearest
from src.catalog.scan import ModelEntry
from src.errors import ModelNotFound


class Listing:
    """Never changes. Names of requests are looked up here, never made into paths."""

    def __init__(self, entries: dict[str, ModelEntry], unreadable: tuple[str, ...] = ()) -> None:
        """`unreadable`: a sentence for each folder or file that may not be looked at."""
        self.unreadable = unreadable
        self.entries: Mapping[str, ModelEntry] = MappingProxyType(entries)
        self._names = {
            other: entry.name for entry in entries.values() for other in (*entry.options.names, *entry.also) if other not in entries
        }
        self._wildcards = [name for name in self._names if WILDCARD in name]

    def find(self, name: str) -> ModelEntry:
        """By name, alias or an adapter's name. Raises ModelNotFound with the names there are."""
        entry = self.entries.get(self.name_of(name))
        if entry is None:
            known = ", ".join(name for name, entry in self.entries.items() if not entry.problem) or "none"
            raise ModelNotFound(f"The model {name[:100]!r} does not exist. Models here: {known}.", param="model")
        return entry

    def name_of(self, name: str) -> str:
        """The model that an alias or an adapter's name stands for; any other name is itself."""
        return self._names.get(self._given(name), name)

    def has(self, name: str) -> bool:
        """Whether the name stands for a model or an adapter."""
        return name in self.entries or self._given(name) in self._names

    def _given(self, name: str) -> str:
        """The name as models.toml has it: the alias with wildcards that stands for it, where it is none itself."""
        if name in self.entries or name in self._names:
            return name
        return nearest(name, self._wildcards) or name

    def is_adapter(self, name: str) -> bool:
        """Whether a name stands for a model with one of its adapters."""
        entry = self.entries.get(self._names.get(name, ""))
        return entry is not None and name in entry.options.adapters

    def is_visible(self, name: str, among: Collection[str]) -> bool:
        """Whether one of the names `among` stands for the model or adapter that `name` stands for; empty: all are visible."""
        return not among or any(self._given(name) in names for names in self._visible(among).values())

    def invisible(self, name: str | None, among: Collection[str]) -> ModelNotFound:
        """The refusal of a request for a model that is not visible. It names no other models, nor the default one."""
        which = "The request names no model." if name is None else f"The model {name[:100]!r} does not exist."
        return ModelNotFound(f"{which} Models here: {', '.join(self._visible(among)) or 'none'}.", param="model")

    def _visible(self, among: Collection[str]) -> dict[str, set[str]]:
        """Models and adapters by their own names, with all names that each has."""
        among = {self._given(name) for name in among}
        names: dict[str, set[str]] = {}
        for entry in self.entries.values():
            names[entry.name] = {entry.name, *entry.options.aliases, *entry.also}
            names |= {adapter: {adapter} for adapter in entry.options.adapters}
        return {name: others for name, others in names.items() if not others.isdisjoint(among)}
