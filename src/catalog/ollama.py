"""Ollama's store, read in place: which models its manifests name, and where their blobs lie. Writes nothing, runs nothing of it.

STORE/manifests/HOST/NAMESPACE/MODEL/TAG    JSON: the layers of a model, each by its media type and its content's SHA-256
STORE/blobs/sha256-HEX                      the layers: a GGUF, parameters, and others that are not read (template, system, licence)

A manifest is a stranger's word: names and digests are held against their patterns before a path is made of them, sizes against bounds.
Layout: https://github.com/ollama/ollama/blob/main/manifest/paths.go, media types: server/images.go, parameters: api/types.go there.
"""

import itertools
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from src.catalog.bounds import CutOff
from src.catalog.folders import STORE, Unreadable, Unseen, WeightFile
from src.catalog.makers import valid_sampling
from src.catalog.stamps import Stamps

MANIFESTS, BLOBS = STORE
MAX_NAMES = 5_000  # files and folders below manifests
MAX_MANIFEST_BYTES = 4 * 2**20
MAX_PARAMETERS_BYTES = 64 * 2**10
DEFAULT_HOST, DEFAULT_NAMESPACE, DEFAULT_TAG = "registry.ollama.ai", "library", "latest"  # which Ollama leaves out of a name
_DEPTH = 4  # of a manifest below manifests
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._:-]{0,99}")
_DIGEST = re.compile(r"sha256[:-](?P<hex>[0-9a-fA-F]{64})")
_KIND = "application/vnd.ollama.image."
_SAMPLING = {"repeat_penalty": "repetition_penalty"}  # Ollama's names that are not ours


class Stored(NamedTuple):
    """One name of the store with its files. `weights` is None where there is none that could be loaded."""

    name: str
    also: tuple[str, ...]
    manifest: Path
    weights: WeightFile | None
    parameters: WeightFile | None
    problem: str | None


class _Layer(msgspec.Struct, frozen=True, rename="camel"):
    media_type: str = ""
    digest: str = ""
    size: int = -1


class _Manifest(msgspec.Struct, frozen=True):
    layers: list[_Layer] | None = None


class _Broken(Exception):
    """The message is the reason."""


def stored_models(store: Path, stamps: Stamps, unseen: list[Unseen]) -> Iterator[Stored]:
    """Every name of a store, in their order, also of models that cannot be loaded. `stamps` get all that it depends on."""
    left = [MAX_NAMES]
    for parts, path in _manifests(store / MANIFESTS, (), stamps, unseen, left):
        host, namespace, model, tag = parts
        shown = "/".join([*([host, namespace] if host != DEFAULT_HOST else [namespace] if namespace != DEFAULT_NAMESPACE else []), model])
        also = (shown,) if tag == DEFAULT_TAG else ()
        try:
            yield Stored(f"{shown}:{tag}", also, path, *_layers(store, path, stamps), None)
        except _Broken as error:
            yield Stored(f"{shown}:{tag}", also, path, None, None, str(error))
    if left[0] < 0:
        unseen.append(CutOff(store, f"the rest of {store} is skipped: it has more than {MAX_NAMES:,} manifests"))


def parameters_sampling(path: Path) -> dict[str, float]:
    """What a layer of parameters says of sampling, by a request's fields; those that no request could have are left out."""
    try:
        parameters = json.loads(_read(path, MAX_PARAMETERS_BYTES, "parameters"))
    except (_Broken, ValueError, RecursionError):  # the model can do without them
        return {}
    if not isinstance(parameters, dict):
        return {}
    return valid_sampling({_SAMPLING.get(str(name), str(name)): value for name, value in parameters.items()})


def _manifests(
    folder: Path, parts: tuple[str, ...], stamps: Stamps, unseen: list[Unseen], left: list[int]
) -> Iterator[tuple[tuple[str, ...], Path]]:
    """Links are not followed: Ollama makes none."""
    try:
        stamps.look(folder)
        with os.scandir(folder) as entries:
            found = sorted(itertools.islice(entries, max(left[0], 0) + 1), key=lambda entry: entry.name)
    except OSError as error:
        unseen.append(Unreadable(folder, error))
        return
    left[0] -= len(found)
    for entry in found if left[0] >= 0 else ():
        if not _NAME.fullmatch(entry.name):
            continue
        inner = (*parts, entry.name)
        if len(inner) < _DEPTH and entry.is_dir(follow_symlinks=False):
            yield from _manifests(folder / entry.name, inner, stamps, unseen, left)
        elif len(inner) == _DEPTH and entry.is_file(follow_symlinks=False):
            yield inner, folder / entry.name


def _layers(store: Path, manifest: Path, stamps: Stamps) -> tuple[WeightFile, WeightFile | None]:
    """The GGUF and the parameters that a manifest names. Raises _Broken."""
    layers: dict[str, list[_Layer]] = {}
    for layer in _read_manifest(manifest, stamps).layers or ():
        layers.setdefault(layer.media_type.removeprefix(_KIND), []).append(layer)
    if "adapter" in layers:
        raise _Broken("it is a LoRA adapter on another model, which is not read from Ollama's store")
    models = layers.get("model", [])
    if "tensor" in layers and not models:
        raise _Broken("it is stored as single tensors, which only Ollama reads")
    if len(models) != 1:
        raise _Broken(f"its manifest names {len(models)} GGUF files, not one")
    weights = _blob(store, models[0], stamps)
    if models[0].size not in (-1, weights.size):
        raise _Broken(f"it is cut short: {weights.size:,} of {models[0].size:,} bytes present")
    parameters = layers.get("params", [])
    return weights, _small_blob(store, parameters[0], stamps) if parameters else None


def _read_manifest(path: Path, stamps: Stamps) -> _Manifest:
    try:
        stamps.look(path)
        return msgspec.json.decode(_read(path, MAX_MANIFEST_BYTES, "manifest"), type=_Manifest)
    except OSError as error:
        raise _Broken(f"its manifest cannot be read: {error.strerror}") from error
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise _Broken("its manifest is not one that Ollama writes") from error


def _blob(store: Path, layer: _Layer, stamps: Stamps) -> WeightFile:
    """Raises _Broken."""
    digest = _DIGEST.fullmatch(layer.digest)
    if digest is None:
        raise _Broken("its manifest names a file by what is no SHA-256")
    path = store / BLOBS / f"sha256-{digest['hex']}"
    try:
        info = stamps.look(path)
    except OSError as error:
        raise _Broken(f"its file {path.name[:19]}… cannot be read: {error.strerror}") from error
    if not path.is_file():  # a pipe would be waited for
        raise _Broken(f"its file {path.name[:19]}… is not a regular file")
    return WeightFile(path, info.st_size, info.st_mtime_ns, info.st_ino, info.st_dev)


def _small_blob(store: Path, layer: _Layer, stamps: Stamps) -> WeightFile:
    """One that is read as text, so it may not be a link to elsewhere. Raises _Broken."""
    blob = _blob(store, layer, stamps)
    if os.path.realpath(blob.path) != os.path.join(os.path.realpath(store / BLOBS), blob.path.name):
        raise _Broken(f"its file {blob.path.name[:19]}… is a link that leads out of Ollama's store")
    return blob


def _read(path: Path, most: int, what: str) -> bytes:
    """Raises _Broken."""
    try:
        with path.open("rb") as file:
            data = file.read(most + 1)
    except OSError as error:
        raise _Broken(f"its {what} cannot be read: {error.strerror}") from error
    if len(data) > most:
        raise _Broken(f"its {what} is larger than {most:,} bytes")
    return data
