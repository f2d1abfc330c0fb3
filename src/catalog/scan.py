"""From files to models: which of them are one, what it is called, and what is wrong with it.

MODELS_DIR/x.gguf                    x
MODELS_DIR/x-00001-of-00003.gguf     x, all parts together
MODELS_DIR/folder/…/anything.gguf    folder, where it is the only model in there; else the file's stem
MODELS_DIR/folder/…/config.json      with *.safetensors beside it: folder, or the inner folder's name where there are several

So it is also in the caches that the hubs' clients make: modelscope's models/owner--name/snapshots/master/ (before 1.38
owner/name___with___dots/), huggingface-hub's models--owner--name/snapshots/commit/. Of several revisions one counts.
"""

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from src.catalog import gguf, safetensors
from src.catalog.bounds import CutOff
from src.catalog.facts import BrokenModel, Facts, NotAModel
from src.catalog.folders import Folder, Unreadable, WeightFile, repository, walk
from src.catalog.makers import FILE, makers_sampling
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
    problem: str | None = None  # why it is never offered: cut short, half downloaded, damaged
    facts: Facts = Facts()
    options: ModelOptions = NONE


class _Found(NamedTuple):
    """A model before anything of it was read."""

    name: str
    folder: Folder
    path: Path
    format: str
    weights: list[WeightFile]
    problem: str | None


class _Contents(NamedTuple):
    format: str
    facts: Facts
    problem: str | None


class Catalog:
    """What the models folder holds at the moment of each scan. Never builds a path from a name: names come from disk."""

    def __init__(self, models_dir: Path) -> None:
        self._root = models_dir
        self._read: dict[str, _Contents | None] = {}  # by version; None: no model
        self._stamps = Stamps()
        self.unreadable: list[Unreadable | CutOff] = []  # of the last scan, also what it cut off

    @property
    def current(self) -> bool:
        """Whether a scan would find what the last one found, by a stat of all it looked at. False before the first."""
        return self._stamps.current and not any(each.may_change_unseen for each in self.unreadable)

    def scan(self) -> dict[str, ModelEntry]:
        """The models by name, in the order of their names. {} where the folder is missing; `unreadable` has what may not be read.

        Opens only the headers of files that are new or have changed since the scan before.
        """
        entries: dict[str, ModelEntry] = {}
        for group in self._groups():
            whole = [entry for entry in group if entry.problem is None] or group
            for entry in group:
                where = Path(entry.path).relative_to(self._root)
                name = _top(where) if whole == [entry] and len(where.parts) > 1 else entry.name
                if name in entries:  # x.gguf beside x/y.gguf: the later one goes by its path
                    name = str(where)
                entries.setdefault(name, msgspec.structs.replace(entry, name=name))
        return dict(sorted(entries.items()))

    def _groups(self) -> list[list[ModelEntry]]:
        """Models that lie below the same top folder; a file directly in the models folder is a group of its own."""
        groups: dict[tuple[str, ...], list[ModelEntry]] = {}
        known, self._read = self._read, {}
        self._stamps, self.unreadable = Stamps(), []
        for folder in walk(self._root, self._stamps, self.unreadable):
            for found in _models(folder, is_root=folder.path == self._root):
                found = found._replace(problem=found.problem or _what_leads_out(found, self._root))
                version = _version(found)
                contents = self._read[version] = known[version] if version in known else _open(found)
                if contents:
                    where = found.path.relative_to(self._root)
                    groups.setdefault(where.parts[: 2 if _is_modelscope_cache(where) else 1], []).append(_entry(found, version, contents))
        # Folders first: a name is all they have, while a file that comes too late for its name can go by its path.
        # Whole models before broken ones, so that none of these takes a name from them.
        return sorted(groups.values(), key=lambda group: (group[0].problem is not None, group[0].format == "gguf", group[0].path))


def _top(where: Path) -> str:
    """The name of a model that is the only one below its top folder."""
    if _is_modelscope_cache(where):
        return repository(where.parts[1])
    return repository(where.parts[0]) if where.parts[0].startswith("models--") else where.parts[0]


def _is_modelscope_cache(where: Path) -> bool:
    return where.parts[0] == "models" and where.parts[2:3] == ("snapshots",)


def _entry(found: _Found, version: str, contents: _Contents) -> ModelEntry:
    return ModelEntry(
        name=found.name,
        path=str(found.path),
        format=contents.format,
        size_bytes=sum(weight.size for weight in found.weights),
        modified=max((weight.modified_ns for weight in found.weights), default=0) // 10**9,
        version=version,
        problem=contents.problem,
        facts=contents.facts,
    )


def _version(found: _Found) -> str:
    """Names, sizes and times of all that belongs to a model, in short."""
    digest = hashlib.sha256(f"{found.path}\n{found.problem}".encode())
    configs = [file for file in found.folder.configs if found.format != "gguf" or file.path.name == FILE]
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
        return _Contents(kind, msgspec.structs.replace(facts, sampling=makers_sampling(found.folder.path)), None)
    except NotAModel:
        return None
    except (BrokenModel, ModelLoadFailed) as error:
        return _Contents(found.format, Facts(), str(error))
    except OSError as error:
        return _Contents(found.format, Facts(), f"it cannot be read: {error.strerror}")
    except MALFORMED as error:  # one file must not hide all the others
        return _Contents(found.format, Facts(), f"its header is invalid ({type(error).__name__})")


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
