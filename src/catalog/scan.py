"""From files to models: which of them are one, what it is called, and what is wrong with it.

MODELS_DIR/x.gguf                    x
MODELS_DIR/x-00001-of-00003.gguf     x, all parts together
MODELS_DIR/folder/…/anything.gguf    folder, where it is the only model in there; else the file's stem
MODELS_DIR/folder/…/config.json      with *.safetensors beside it: folder, or the inner folder's name where there are several

So it is also in the caches that the hubs' clients make: modelscope's models/owner--name/snapshots/master/ (before 1.38
owner/name___with___dots/), huggingface-hub's models--owner--name/snapshots/commit/. Of several revisions one counts.
What other programs keep is named as src.catalog.layout says.
"""

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from src.catalog import gguf, safetensors
from src.catalog.facts import BrokenModel, Facts, NotAModel
from src.catalog.folders import RECONNECT, Folder, Missing, Unseen, WeightFile, walk
from src.catalog.layout import Layout, Place
from src.catalog.makers import FILE, makers_sampling
from src.catalog.ollama import Stored, parameters_sampling, stored_models
from src.catalog.options import NONE, ModelOptions
from src.catalog.stamps import Stamps
from src.errors import ModelLoadFailed
from src.hf_folder import check_file, check_folder

_PART = re.compile(r"(?P<name>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})")


# What a reader may meet in a file that it was not written for.
MALFORMED = (ArithmeticError, AttributeError, LookupError, MemoryError, RecursionError, TypeError, ValueError)


class ModelEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One model. `path` is a GGUF file (of a split one, the first part) or a folder with safetensors."""

    name: str
    path: str
    format: str  # gguf, safetensors, mlx
    size_bytes: int  # of all weight files
    modified: int  # Unix seconds, of the newest weight file
    version: str = ""  # another one once its files have changed
    problem: str | None = None  # why it is never offered: cut short, half downloaded, damaged, its folder gone
    remedy: str = "Download it again, or remove it"
    facts: Facts = Facts()
    options: ModelOptions = NONE
    also: tuple[str, ...] = ()  # other names that it goes by
    places: tuple[Place, ...] = ()  # where it lies: more than one where folders of MODELS_DIR share it
    weights: tuple[WeightFile, ...] = ()
    configs: tuple[WeightFile, ...] = ()

    @property
    def is_lost(self) -> bool:
        """Whether it was there, and what it lies on cannot be reached now."""
        return self.remedy == RECONNECT


class _Found(NamedTuple):
    """A model before anything of it was read."""

    name: str
    folder: Folder
    path: Path
    format: str
    weights: list[WeightFile]
    problem: str | None
    stored: Stored | None = None  # in Ollama's store


class _Contents(NamedTuple):
    format: str
    facts: Facts
    problem: str | None


class Catalog:
    """What a models folder holds at the moment of each scan. Never builds a path from a name: names come from disk."""

    def __init__(self, models_dir: Path, *, is_own: bool = True) -> None:
        """`is_own`: downloads go there, so its models are called as they always were; others' folders have layouts of their own."""
        self._root = models_dir
        self._layout = Layout(models_dir, is_own=is_own)
        self._is_own = is_own
        self._read: dict[str, _Contents | None] = {}  # by version; None: no model
        self._stamps = Stamps()
        self.found: dict[str, ModelEntry] = {}  # by the last scan
        self._device: int | None = None  # that the folder was on when something was in it
        self.unreadable: list[Unseen] = []  # of the last scan, also what it cut off

    @property
    def current(self) -> bool:
        """Whether a scan would find what the last one found, by a stat of all it looked at. False before the first."""
        return self._stamps.current and not any(each.may_change_unseen for each in self.unreadable)

    def scan(self) -> dict[str, ModelEntry]:
        """The models by name, in the order of their names. {} where the folder is missing; `unreadable` has what may not be read.

        Opens only the headers of files that are new or have changed since the scan before. What lay where the disk fails now, or is
        gone, stays listed with that problem: it keeps its name, and comes back with the disk.
        """
        entries: dict[str, ModelEntry] = {}
        for top, group in self._groups():
            whole = [entry for entry in group if entry.problem is None] or group
            for entry in group:
                where = Path(entry.path).relative_to(self._root)
                name = self._layout.name(top) if top and whole == [entry] and len(where.parts) > 1 else entry.name
                if name in entries:  # x.gguf beside x/y.gguf: the later one goes by its path
                    name = self._layout.longer_name(where, top, is_only=whole == [entry]) if top else f"{name}@ollama"
                entries.setdefault(name, msgspec.structs.replace(entry, name=name))
        self._notice_loss(entries)
        self.found = dict(sorted(entries.items()))
        return self.found

    def _groups(self) -> list[tuple[tuple[str, ...], list[ModelEntry]]]:
        """Models by the folder whose name the only one in it has; (): Ollama's, which have names of their own."""
        groups: dict[tuple[tuple[str, ...], str], list[ModelEntry]] = {}
        known, self._read = self._read, {}
        self._stamps, self.unreadable = Stamps(), []
        for folder in walk(self._root, self._stamps, self.unreadable):
            for found in self._models(folder):
                version = _version(found)
                contents = self._read[version] = known[version] if version in known else _open(found)
                if contents:
                    where = found.path.relative_to(self._root)
                    key = ((), found.name) if found.stored else (self._layout.group(where, is_folder=found.path == folder.path), "")
                    place = self._layout.place(where, in_store=found.stored is not None)
                    groups.setdefault(key, []).append(_entry(found, version, contents, place))
        # Folders first: a name is all they have, while a file that comes too late for its name can go by its path.
        # Whole models before broken ones, so that none of these takes a name from them.
        found_groups = [(key[0], group) for key, group in groups.items()]
        return sorted(found_groups, key=lambda each: (each[1][0].problem is not None, each[1][0].format == "gguf", each[1][0].path))

    def _models(self, folder: Folder) -> Iterator[_Found]:
        if folder.is_ollama:
            for stored in stored_models(folder.path, self._stamps, self.unreadable):
                yield _of_store(folder.path, stored)
        for found in _models(folder, is_root=folder.path == self._root):
            yield found._replace(problem=found.problem or _what_leads_out(found, self._root))

    def _notice_loss(self, entries: dict[str, ModelEntry]) -> None:
        """Add what was there before and cannot be reached now."""
        try:
            device = self._root.stat().st_dev
        except FileNotFoundError:
            device = None
        except OSError:  # told by the walk
            device = self._device
        if (device is None and (self.found or not self._is_own)) or (not entries and self.found and device != self._device):
            self.unreadable.append(Missing(self._root))  # in the second case an empty mount point is left of it
        elif entries:
            self._device = device
        for lost in self.unreadable:
            for name, entry in self.found.items() if lost.lost else ():
                if name not in entries and Path(entry.path).is_relative_to(lost.path):
                    entries[name] = msgspec.structs.replace(entry, problem=entry.problem or lost.lost, remedy=RECONNECT)


def _of_store(store: Path, stored: Stored) -> _Found:
    weights = [stored.weights] if stored.weights else []
    folder = Folder(store, "", weights, [stored.parameters] if stored.parameters else [], [])
    return _Found(stored.name, folder, weights[0].path if weights else stored.manifest, "gguf", weights, stored.problem, stored)


def _entry(found: _Found, version: str, contents: _Contents, place: Place) -> ModelEntry:
    return ModelEntry(
        name=found.name,
        path=str(found.path),
        format=contents.format,
        size_bytes=sum(weight.size for weight in found.weights),
        modified=max((weight.modified_ns for weight in found.weights), default=0) // 10**9,
        version=version,
        problem=contents.problem,
        facts=contents.facts,
        also=found.stored.also if found.stored else (),
        places=(place,),
        weights=tuple(found.weights),
        configs=() if contents.format == "gguf" else tuple(found.folder.configs),
    )


def _version(found: _Found) -> str:
    """Names, sizes and times of all that belongs to a model, in short."""
    digest = hashlib.sha256(f"{found.path}\n{found.problem}".encode())
    configs = [file for file in found.folder.configs if found.stored or found.format != "gguf" or file.path.name == FILE]
    for file in [*found.weights, *configs]:
        digest.update(f"\n{file.path.name} {file.size} {file.modified_ns} {file.inode}".encode())
    return digest.hexdigest()[:12]


def _what_leads_out(found: _Found, root: Path) -> str | None:
    """Looked at in each scan, for a link may lead elsewhere by now although no file of the model is another one."""
    try:
        if found.format == "gguf":
            check_file(found.folder.path / FILE, found.folder.path, root)
        else:
            check_folder(found.folder.path, root)
    except ModelLoadFailed as error:
        return error.message
    return None


def _open(found: _Found) -> _Contents | None:
    """What the files' headers say; None where they say that it is no model."""
    if found.problem:
        return _Contents(found.format, Facts(), found.problem)
    weights = [weight.path for weight in found.weights]
    try:
        if found.format == "gguf":
            kind, facts = "gguf", gguf.facts([gguf.read_header(path) for path in weights], sum(weight.size for weight in found.weights))
        else:
            kind, facts = safetensors.facts(found.path, weights)
        return _Contents(kind, msgspec.structs.replace(facts, sampling=_sampling(found)), None)
    except NotAModel:
        return _Contents(found.format, Facts(), "its GGUF is no model, but a part of one") if found.stored else None
    except (BrokenModel, ModelLoadFailed) as error:
        return _Contents(found.format, Facts(), str(error))
    except OSError as error:
        return _Contents(found.format, Facts(), f"it cannot be read: {error.strerror}")
    except MALFORMED as error:  # one file must not hide all the others
        return _Contents(found.format, Facts(), f"its header is invalid ({type(error).__name__})")


def _sampling(found: _Found) -> dict[str, float]:
    """That its makers recommend. Raises ModelLoadFailed."""
    if found.stored:
        return parameters_sampling(found.stored.parameters.path) if found.stored.parameters else {}
    return makers_sampling(found.folder.path)


def _models(folder: Folder, *, is_root: bool) -> Iterator[_Found]:
    ggufs = [file for file in folder.weights if file.path.suffix == ".gguf" and "mmproj" not in file.path.name.lower()]
    for name, parts, problem in _sets(ggufs):
        yield _Found(name, folder, parts[0].path, "gguf", parts, problem)
    tensors = [file for file in folder.weights if file.path.suffix == ".safetensors"]
    if tensors and not is_root and any(file.path.name == "config.json" for file in folder.configs):
        problems = [problem for _, _, problem in _sets(tensors) if problem]
        yield _Found(folder.name, folder, folder.path, "safetensors", tensors, next(iter(problems), None))
    for file in folder.partial:
        stem = file.path.name.split(".gguf")[0].split(".safetensors")[0]
        problem = f"its download is incomplete: {file.path.name} is a partial file"
        if not any(stem == name for name, _, _ in _sets(folder.weights)):  # else a newer version of that one is on its way
            yield _Found(stem, folder, file.path, "gguf" if ".gguf" in file.path.name else "safetensors", [file], problem)


def _sets(files: list[WeightFile]) -> list[tuple[str, list[WeightFile], str | None]]:
    """(stem, files, problem): each file by itself, the parts of a split one together and in order."""
    sets: dict[tuple[str, int | None], list[WeightFile]] = {}
    for file in files:
        part = _PART.fullmatch(file.path.stem)
        key = (part["name"], int(part["count"])) if part else (file.path.stem, None)
        sets.setdefault(key, []).append(file)
    return [(name, parts, _what_is_missing(parts, count)) for (name, count), parts in sets.items()]


def _what_is_missing(parts: list[WeightFile], count: int | None) -> str | None:
    if empty := next((file for file in parts if file.size == 0), None):
        return f"{empty.path.name} is empty"
    if count is None:
        return None
    there = {int(part["number"]) for file in parts if (part := _PART.fullmatch(file.path.stem))}
    missing = [number for number in range(1, count + 1) if number not in there] if count <= 10_000 else [count]
    return f"part {missing[0]} of {count} is missing ({count - len(missing)} present)" if missing else None
