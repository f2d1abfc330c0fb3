"""The models of several folders as one list: the same model in two places is one entry, different ones have different names.

A name belongs to the first folder of MODELS_DIR that has it, whole models before broken ones. Another model of that name in a later
folder is NAME@SOURCE (ollama, huggingface, modelscope, lm-studio, or the folder's own last name), with -2, -3 where that is taken.
"""

import hashlib
import itertools
import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from msgspec.structs import replace

from src.catalog.facts import Facts
from src.catalog.folders import WeightFile
from src.catalog.scan import ModelEntry

SAMPLES, SAMPLE_BYTES = 256, 2**12  # of each weight file, beside its beginning and its end
END_BYTES = 2**20
MAX_CONFIG_BYTES = 128 * 2**20
_DIGEST = re.compile(r"(?:sha256-)?(?P<hex>[0-9a-f]{64})")  # names of blobs: Ollama's, huggingface-hub's


class Merger:
    """Keeps what it has read of files, by their versions."""

    def __init__(self) -> None:
        self._contents: dict[tuple[str, str], str] = {}
        self._digests: dict[str, frozenset[str]] = {}

    def merge(self, folders: Sequence[Mapping[str, ModelEntry]]) -> dict[str, ModelEntry]:
        """By name, in the order of their names. `folders`: the models of each, in the order of MODELS_DIR."""
        merged: list[ModelEntry] = []
        # Numbers of folder and entry, by what is cheap to compare.
        alike: defaultdict[tuple[str, int], list[tuple[int, int]]] = defaultdict(list)
        for number, entry in ((number, entry) for number, entries in enumerate(folders) for entry in entries.values()):
            others = alike[entry.format, entry.size_bytes]
            # Two files of one folder are two models, as ever; but two names in Ollama's store are often one.
            same = next(
                (at for folder, at in others if (folder != number or _are_stored(merged[at], entry)) and self._is_same(merged[at], entry)),
                None,
            )
            if same is None:
                others.append((number, len(merged)))
                merged.append(entry)
            else:
                merged[same] = _joined(merged[same], entry)
        return _named(merged)

    def _is_same(self, one: ModelEntry, other: ModelEntry) -> bool:
        if one.facts != other.facts or one.facts == Facts():  # which a broken model has
            return False
        names = {one.name, *one.also} & {other.name, *other.also}
        same = (
            _inodes(one) == _inodes(other) != []
            or self._known_digests(one) == self._known_digests(other) != frozenset()
            or bool(names and self._content(one, "weights") == self._content(other, "weights") != "")
        )
        return same and self._content(one, "configs") == self._content(other, "configs")

    def _known_digests(self, entry: ModelEntry) -> frozenset[str]:
        """By the names of the blobs that the weights are, or lead to; empty where one of them has no such name."""
        if entry.version not in self._digests:
            blobs = [os.path.realpath(weight.path) for weight in entry.weights]
            found = [match["hex"] for blob in blobs if Path(blob).parent.name == "blobs" and (match := _DIGEST.fullmatch(Path(blob).name))]
            self._digests[entry.version] = frozenset(found if len(found) == len(blobs) else ())
        return self._digests[entry.version]

    def _content(self, entry: ModelEntry, what: str) -> str:
        """A digest of samples of the weights, or of all configs; empty where they cannot be read."""
        key = entry.version, what
        if key not in self._contents:
            is_weights = what == "weights"
            files = sorted(entry.weights if is_weights else entry.configs, key=lambda file: file.path.name)
            try:
                self._contents[key] = _digest(files, _samples) if is_weights else _digest(files, _whole, with_names=True)
            except OSError:
                return ""
        return self._contents[key]


def _inodes(entry: ModelEntry) -> list[tuple[int, int]]:
    """Of its weights; empty where the file system gives none."""
    found = sorted((file.device, file.inode) for file in entry.weights)
    return found if all(inode for _, inode in found) else []


def _are_stored(one: ModelEntry, other: ModelEntry) -> bool:
    return {place.source for place in one.places + other.places} == {"ollama"}


def _joined(first: ModelEntry, second: ModelEntry) -> ModelEntry:
    """The first, or the second by the first's name where the first cannot be reached now."""
    names = dict.fromkeys([*first.also, second.name, *second.also])
    chosen = second if first.problem and not second.problem else first
    return replace(
        chosen,
        name=first.name,
        also=tuple(name for name in names if name != first.name),
        places=tuple(dict.fromkeys(first.places + second.places)),
    )


def _named(entries: Iterable[ModelEntry]) -> dict[str, ModelEntry]:
    """A model whose disk is gone keeps its name: no other one must answer for it."""
    named: dict[str, ModelEntry] = {}
    for entry in sorted(entries, key=lambda entry: entry.problem is not None and not entry.is_lost):
        name = entry.name
        if name in named:
            longer = f"{name}@{entry.places[0].label}"
            numbered = (f"{longer}-{number}" for number in itertools.count(2))
            name = next(each for each in (longer, *itertools.islice(numbered, len(named))) if each not in named)
        named[name] = replace(entry, name=name)
    return dict(sorted(named.items()))


def _digest(files: Iterable[WeightFile], read: Callable[[BinaryIO, int], Iterator[bytes]], *, with_names: bool = False) -> str:
    """Raises OSError."""
    digest = hashlib.sha256()
    for each in files:
        digest.update(f"{each.path.name if with_names else ''} {each.size}\n".encode())
        with each.path.open("rb") as file:
            for data in read(file, each.size):
                digest.update(data)
    return digest.hexdigest()


def _samples(file: BinaryIO, size: int) -> Iterator[bytes]:
    """Its beginning, its end and some between: no two trainings leave all of these alike."""
    yield file.read(END_BYTES)
    for number in range(SAMPLES):
        file.seek(size * number // SAMPLES)
        yield file.read(SAMPLE_BYTES)
    file.seek(max(0, size - END_BYTES))
    yield file.read(END_BYTES)


def _whole(file: BinaryIO, size: int) -> Iterator[bytes]:
    yield file.read(MAX_CONFIG_BYTES)
