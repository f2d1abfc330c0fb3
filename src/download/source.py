"""What every source offers: a listing of a repository at a revision, and fetching its files. Knows no protocol."""

import fnmatch
import hashlib
import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import msgspec

CHUNK = 2**20
# The same weights in other forms, and code, which is never run from a models folder.
UNWANTED = ("*.bin", "*.pt", "*.pth", "*.h5", "*.msgpack", "*.onnx", "*.ot", "*.py", "onnx/*", "openvino/*", "coreml/*", "original/*")


class DownloadError(Exception):
    """One line: what happened, why, and what to do."""


class RemoteFile(msgspec.Struct, frozen=True):
    path: str  # in the repository, with slashes
    size: int
    digest: str | None = None  # "sha256:…", or "git:…" (a git blob's id) where the source has no other


class Listing(msgspec.Struct, frozen=True, kw_only=True):
    source: str
    repo: str
    revision: str  # as it was asked for: main, a tag, a version
    commit: str  # what that was at the time: another one once anything has changed
    files: list[RemoteFile]

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)


class Source(ABC):
    name: str
    revision: str  # where none is asked for

    @abstractmethod
    def list(self, repo: str, revision: str) -> Listing:
        """All files there are. Raises DownloadError."""

    @abstractmethod
    def fetch(self, listing: Listing, folder: Path) -> None:
        """Get the files of a listing into a folder; what is there already, whole or in part, is gone on from. Raises DownloadError."""


def select(listing: Listing, include: Sequence[str]) -> Listing:
    """The files that match one of the patterns; without patterns, those that make up a model. Raises DownloadError."""
    for file in listing.files:
        path = PurePosixPath(file.path)
        if path.is_absolute() or ".." in path.parts or not file.path.isprintable() or "\\" in file.path:
            raise DownloadError(f"{listing.repo} has a file with the path {file.path[:100]!r}, which no model has: nothing was downloaded")
    if include:
        files = [file for file in listing.files if any(fnmatch.fnmatch(file.path, pattern) for pattern in include)]
        if not any(is_weight(file.path) for file in files):
            raise DownloadError(f"no weights of {listing.repo} match {' '.join(include)}: it has {_names(listing.files)}")
    else:
        files = [file for file in listing.files if not any(fnmatch.fnmatch(file.path, pattern) for pattern in UNWANTED)]
        files = [file for file in files if not any(part.startswith(".") for part in PurePosixPath(file.path).parts)]
        if not any(is_weight(file.path) for file in files):
            raise DownloadError(f"{listing.repo} has no weights as GGUF or safetensors: it has {_names(listing.files)}")
        variants = sorted(
            {re.sub(r"-\d{5}-of-\d{5}", "", file.path) for file in files if file.path.endswith(".gguf") and "mmproj" not in file.path}
        )
        if len(variants) > 1:
            raise DownloadError(f"{listing.repo} has {len(variants)} models in one: choose with --include, of {', '.join(variants[:40])}")
    return msgspec.structs.replace(listing, files=files)


def is_weight(path: str) -> bool:
    return path.endswith((".gguf", ".safetensors"))


def wrong(file: RemoteFile, place: Path) -> str | None:
    """What is wrong with a file that was fetched; None where it is as the source has it."""
    if not place.is_file():
        return "it is not there"
    size = place.stat().st_size
    if size != file.size and not (file.digest and file.size == 0):  # pip tells no sizes, only digests
        return f"it has {size:,} of {file.size:,} bytes"
    if file.digest is None:
        return None
    kind, expected = file.digest.split(":", 1)
    digest = hashlib.sha256() if kind == "sha256" else hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    with place.open("rb") as opened:
        while block := opened.read(CHUNK):
            digest.update(block)
    return None if digest.hexdigest() == expected.lower() else f"its digest is {digest.hexdigest()[:16]}…, not {expected[:16]}…"


def _names(files: Sequence[RemoteFile]) -> str:
    return ", ".join(file.path[:60] for file in files[:20]) or "no files"
