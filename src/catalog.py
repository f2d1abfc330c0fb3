"""The models folder: names, formats and sizes of what lies in it. Opens no model and knows no engine.

MODELS_DIR/x.gguf                    x
MODELS_DIR/x-00001-of-00003.gguf     x, all parts together; a set with a part missing is no model
MODELS_DIR/folder/…/anything.gguf    folder, where it is the only model in there; else the file's stem
MODELS_DIR/folder/…/config.json      with *.safetensors beside it: folder, or the inner folder's name where there are several
"""

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

_PART = re.compile(r"(?P<name>.+)-\d{5}-of-(?P<count>\d{5})")


class ModelEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One model. `path` is a GGUF file (of a split one, the first part) or a folder with safetensors."""

    name: str
    path: str
    format: str  # gguf, safetensors
    size_bytes: int  # of all weight files
    modified: int  # Unix seconds, of the newest weight file


class _Weight(NamedTuple):
    path: Path
    size: int
    modified: int


class Catalog:
    """What the models folder holds at the moment of each scan. Never builds a path from a name: names come from disk."""

    def __init__(self, models_dir: Path) -> None:
        self._root = models_dir

    def scan(self) -> dict[str, ModelEntry]:
        """The models by name, in the order of their names. {} where the folder is missing or unreadable."""
        entries: dict[str, ModelEntry] = {}
        for group in self._groups():
            for entry in group:
                where = Path(entry.path).relative_to(self._root)
                name = where.parts[0] if len(group) == 1 and len(where.parts) > 1 else entry.name
                if name in entries:  # x.gguf beside x/y.gguf: the later one goes by its path
                    name = str(where)
                entries.setdefault(name, msgspec.structs.replace(entry, name=name))
        return dict(sorted(entries.items()))

    def _groups(self) -> list[list[ModelEntry]]:
        """Models that lie below the same top folder; a file directly in the models folder is a group of its own."""
        groups: dict[str, list[ModelEntry]] = {}
        for folder, weights in _walk(self._root):
            found = [*_ggufs(weights), *(_safetensors(folder, weights) if folder != self._root else ())]
            for entry in found:
                groups.setdefault(Path(entry.path).relative_to(self._root).parts[0], []).append(entry)
        # Folders first: a name is all they have, while a file that comes too late for its name can go by its path.
        return sorted(groups.values(), key=lambda group: (group[0].format == "gguf", group[0].path))


def _walk(folder: Path, above: frozenset[tuple[int, int]] = frozenset()) -> Iterator[tuple[Path, list[_Weight]]]:
    """`folder` and every folder below it with the weight files directly in them. Follows links, but not in circles."""
    weights: list[_Weight] = []
    subfolders: list[Path] = []
    try:
        here = folder.stat()
        names = sorted(filter(_is_visible, os.listdir(folder)))
    except OSError:
        return
    if (here.st_dev, here.st_ino) in above:
        return
    for path in (folder / name for name in names):
        try:
            info = path.stat()
        except OSError:  # a broken link, or gone since it was listed
            continue
        if stat.S_ISDIR(info.st_mode):
            subfolders.append(path)
        elif stat.S_ISREG(info.st_mode) and info.st_size > 0 and path.suffix in (".gguf", ".safetensors"):
            weights.append(_Weight(path, info.st_size, int(info.st_mtime)))
    yield folder, weights
    for subfolder in subfolders:
        yield from _walk(subfolder, above | {(here.st_dev, here.st_ino)})


def _is_visible(name: str) -> bool:
    # A name that cannot be printed (control characters, bytes that are not UTF-8) could not be sent as JSON either.
    return name.isprintable() and not name.startswith(".") and not name.endswith((".part", ".tmp"))


def _ggufs(weights: list[_Weight]) -> Iterator[ModelEntry]:
    files = [weight for weight in weights if weight.path.suffix == ".gguf" and "mmproj" not in weight.path.name.lower()]
    for name, parts in _complete_sets(files):
        yield _entry(name, parts[0].path, "gguf", parts)


def _safetensors(folder: Path, weights: list[_Weight]) -> Iterator[ModelEntry]:
    files = [weight for weight in weights if weight.path.suffix == ".safetensors"]
    whole = sum(len(parts) for _, parts in _complete_sets(files)) == len(files) > 0
    if whole and (folder / "config.json").is_file():
        yield _entry(folder.name, folder, "safetensors", files)


def _complete_sets(files: list[_Weight]) -> list[tuple[str, list[_Weight]]]:
    """Each file with its stem, the parts of a split one together and in order. Sets with a part missing are left out."""
    sets: dict[tuple[str, int | None], list[_Weight]] = {}
    for file in files:
        part = _PART.fullmatch(file.path.stem)
        key = (part["name"], int(part["count"])) if part else (file.path.stem, None)
        sets.setdefault(key, []).append(file)
    return [(name, parts) for (name, count), parts in sets.items() if count is None or len(parts) == count]


def _entry(name: str, path: Path, form: str, weights: list[_Weight]) -> ModelEntry:
    return ModelEntry(
        name=name,
        path=str(path),
        format=form,
        size_bytes=sum(weight.size for weight in weights),
        modified=max(weight.modified for weight in weights),
    )
