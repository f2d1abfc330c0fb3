"""The models folders with the options of models.toml, read again when something in them has changed."""

import contextlib
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec

from src.catalog.facts import capabilities
from src.catalog.listing import Listing
from src.catalog.merge import Merger
from src.catalog.options import FILE, NONE, ModelOptions, read_options
from src.catalog.scan import Catalog, ModelEntry
from src.catalog.stamps import Stamps
from src.errors import ModelLoadFailed, SettingsError
from src.hf_folder import check_file, read_template


class Library:
    """Scans the folders when something in them has changed.

    Any thread may use it. A look takes a stat of each file, or a scan: not for the thread of an event loop.
    """

    def __init__(self, folder: Path, on_error: Callable[[str], None], others: Sequence[Path] = ()) -> None:
        """`on_error` is called once for a models.toml that is wrong; its last valid content stays in force until it is right.
        `others` hold models too, but no models.toml."""
        self._folder = folder
        self._catalogs = [Catalog(folder), *(Catalog(other, is_own=False) for other in others)]
        self._merger = Merger()
        self._on_error = on_error
        self._error = ""  # of models.toml
        self._options_stamps = Stamps()
        self._lock = threading.Lock()
        self._options: dict[str, ModelOptions] = {}
        self._listing = Listing({})

    def look(self) -> Listing:
        """All models there are now, also those that are broken. The same listing as before while nothing has changed."""
        with self._lock:
            if self._error or not self._options_stamps.current:
                self._listing = self._scan(self._catalogs)
            elif changed := [catalog for catalog in self._catalogs if not catalog.current]:  # a disk that fails is, at each look
                self._listing = self._scan(changed)
            return self._listing

    def _scan(self, changed: Sequence[Catalog]) -> Listing:
        self._options = self._read_options()
        found = self._merger.merge([catalog.scan() if catalog in changed else catalog.found for catalog in self._catalogs])
        also = _free_names(found, self._options)
        entries = {name: self._with_options(entry, self._options.get(name, NONE), also[name]) for name, entry in found.items()}
        return Listing(entries, tuple(str(each) for catalog in self._catalogs for each in catalog.unreadable))

    def _read_options(self) -> dict[str, ModelOptions]:
        self._options_stamps = stamps = Stamps()
        with contextlib.suppress(OSError):
            stamps.look(self._folder / FILE)
        try:
            options, self._error = read_options(self._folder), ""
        except SettingsError as error:
            if str(error) != self._error:
                self._error = str(error)
                self._on_error(self._error)
            return self._options
        for table in options.values():
            for file in table.files:
                with contextlib.suppress(OSError):
                    stamps.look(self._folder / file)
        return options

    def _with_options(self, entry: ModelEntry, options: ModelOptions, also: tuple[str, ...]) -> ModelEntry:
        facts = entry.facts
        problem = entry.problem
        if options.chat_template:  # what is shown is what is served
            template = None
            try:
                check_file(self._folder / options.chat_template, self._folder / options.chat_template.parts[0], self._folder)
                template = read_template(self._folder / options.chat_template)
            except ModelLoadFailed as error:
                problem = problem or error.message
            shown = capabilities(template, embeddings="embeddings" in facts.capabilities)
            facts = msgspec.structs.replace(facts, capabilities=shown)
        return msgspec.structs.replace(entry, options=options.over(facts.sampling), facts=facts, problem=problem, also=also)


def _free_names(entries: Mapping[str, ModelEntry], options: Mapping[str, ModelOptions]) -> dict[str, tuple[str, ...]]:
    """The other names of each model, without those that are a model's own, or that models.toml or an earlier model has."""
    taken = {*entries, *(name for table in options.values() for name in table.names)}
    free: dict[str, tuple[str, ...]] = {}
    for entry in entries.values():
        free[entry.name] = tuple(name for name in entry.also if name not in taken)
        taken.update(free[entry.name])
    return free


class OneModel(Library):
    """A library that holds one model and no folder: the echo engine's."""

    def __init__(self, entry: ModelEntry) -> None:
        super().__init__(Path(), lambda message: None)
        self._listing = Listing({entry.name: entry})

    def look(self) -> Listing:
        return self._listing
