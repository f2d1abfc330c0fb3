"""The models there are by name and alias, with what models.toml wants of them. Knows nothing of engines or processes."""

from collections.abc import Callable
from pathlib import Path

import msgspec

from src.catalog.options import NONE, ModelOptions, read_options
from src.catalog.scan import Catalog, ModelEntry
from src.errors import ModelNotFound, SettingsError


class Library:
    """Looks at the folder anew each time it is asked. Names of requests are looked up, never made into paths."""

    def __init__(self, folder: Path, on_error: Callable[[str], None]) -> None:
        """`on_error` is told once of a models.toml that is wrong; what it said before counts till it is right."""
        self._folder = folder
        self._catalog = Catalog(folder)
        self._on_error = on_error
        self._options: dict[str, ModelOptions] = {}
        self._error = ""
        self._names: dict[str, str] = {}  # of models, by their aliases and those of their adapters

    def entries(self) -> dict[str, ModelEntry]:
        """All models by name, also those that are broken."""
        found = self._catalog.scan()
        try:
            self._options, self._error = read_options(self._folder), ""
        except SettingsError as error:
            if str(error) != self._error:
                self._error = str(error)
                self._on_error(self._error)
        self._names = {other: name for name, of in self._options.items() if name in found for other in of.names if other not in found}
        return {name: msgspec.structs.replace(entry, options=self._options.get(name, NONE)) for name, entry in found.items()}

    def find(self, name: str) -> ModelEntry:
        """By name, alias or an adapter's name. Raises ModelNotFound with the names there are."""
        entries = self.entries()
        found = entries.get(self.name_of(name))
        if found is None:
            known = ", ".join(name for name, entry in entries.items() if not entry.problem) or "none"
            raise ModelNotFound(f"The model {name[:100]!r} does not exist. Models here: {known}.", param="model")
        return found

    def name_of(self, name: str) -> str:
        """The model that an alias or an adapter's name stands for, as of the last look at the folder; any other name is itself."""
        return self._names.get(name, name)

    def is_adapter(self, name: str) -> bool:
        """Whether a name stands for a model with one of its adapters, as of the same look."""
        return name in self._options.get(self._names.get(name, ""), NONE).adapters


class OneModel(Library):
    """A library that holds one model and no folder: the echo engine's."""

    def __init__(self, entry: ModelEntry) -> None:
        super().__init__(Path(), lambda message: None)
        self._entry = entry

    def entries(self) -> dict[str, ModelEntry]:
        return {self._entry.name: self._entry}
