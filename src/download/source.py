"""What every source offers: a listing of a repository at a revision, and fetching its files. Knows no protocol."""

import fnmatch
import hashlib
import re
import resource
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

import msgspec

from src.download.errors import DownloadError
from src.download.reference import Reference, parse_path

CHUNK = 2**20
# What a model here is made of. Nothing else comes, whatever `include` says: no code, nothing that a build reads, no pickles.
SUFFIXES = (".gguf", ".safetensors", ".json", ".txt", ".model", ".model.v3", ".tiktoken", ".bpe", ".jinja", ".md")
LEGAL = ("copying", "license", "notice", "readme", "use_policy")  # files without a suffix
UNWANTED = ("onnx/*", "openvino/*", "coreml/*", "original/*")  # the same model in other forms


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

    @abstractmethod
    def list(self, reference: Reference) -> Listing:
        """All files there are. Raises DownloadError."""

    @abstractmethod
    def fetch(self, listing: Listing, folder: Path) -> None:
        """Get the files of a listing into `place`; what is there already, whole or in part, is gone on from. Raises DownloadError."""

    def choose(self, listing: Listing, include: Sequence[str]) -> Listing:
        """Those files of a listing that are wanted. Raises DownloadError."""
        return select(listing, include)

    def place(self, folder: Path) -> Path:
        """Where a listing's files lie once they were fetched."""
        return folder

    def unpack(self, listing: Listing, folder: Path, has_room: Callable[[int], None]) -> set[Path]:
        """Make the model of what was fetched; its files. `has_room` raises DownloadError where so many bytes more do not fit."""
        return {folder / file.path for file in listing.files}


def select(listing: Listing, include: Sequence[str]) -> Listing:
    """The files that match one of the patterns; without patterns, those that make up a model. Raises DownloadError."""
    for file in listing.files:
        _check(listing, file)
    served = [file for file in listing.files if is_served(file.path)]
    if include:
        files = [file for file in served if any(fnmatch.fnmatch(file.path, pattern) for pattern in include)]
        if not any(is_weight(file.path) for file in files):
            raise DownloadError(f"no weights of {listing.repo} match {' '.join(include)}: it has {_names(listing.files)}")
        for pattern in include:
            matches = fnmatch.filter([file.path for file in listing.files], pattern)
            if matches and not any(is_served(path) for path in matches):
                raise DownloadError(
                    f"include must not be {pattern}, which matches only files that are never downloaded: {', '.join(matches[:5])}"
                )
    else:
        files = [file for file in served if not any(fnmatch.fnmatch(file.path, pattern) for pattern in UNWANTED)]
        if not any(is_weight(file.path) for file in files):
            raise DownloadError(f"{listing.repo} has no weights as GGUF or safetensors: it has {_names(listing.files)}")
        variants = sorted(
            {re.sub(r"-\d{5}-of-\d{5}", "", file.path) for file in files if file.path.endswith(".gguf") and "mmproj" not in file.path}
        )
        if len(variants) > 1:
            raise DownloadError(f"{listing.repo} has {len(variants)} models in one: choose with --include, of {', '.join(variants[:40])}")
    return msgspec.structs.replace(listing, files=files)


def _check(listing: Listing, file: RemoteFile) -> None:
    """A hub's own words. Raises DownloadError."""
    try:
        parse_path(file.path)
    except ValueError as error:
        raise DownloadError(f"{listing.repo} has a file with the path {file.path[:100]!r}, {error}: nothing was downloaded") from None
    if not isinstance(file.size, int) or file.size < 0:
        raise DownloadError(f"{listing.repo} has {file.path[:100]} with a size of {file.size!r}, which no file has: nothing was downloaded")


def is_served(path: str) -> bool:
    """Whether a file may be a part of a model here: by its suffix, and nothing hidden, as the server's own files are."""
    parts = PurePosixPath(path.lower()).parts
    return not any(part.startswith(".") for part in parts) and (parts[-1].endswith(SUFFIXES) or parts[-1] in LEGAL)


def is_weight(path: str) -> bool:
    return path.endswith((".gguf", ".safetensors"))


@contextmanager
def no_file_larger_than(size: int) -> Iterator[None]:
    """What this process writes meanwhile ends there, with EFBIG: the kernel's bound, for clients that write by themselves what the hub
    says at that time."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    if soft == resource.RLIM_INFINITY or size < soft:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


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
