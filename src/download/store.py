"""Where downloads lie in the models folder and how they get their place there. Knows no source.

.downloads/NAME/       being downloaded; what is there is gone on from
.downloads/NAME.lock   held by the one process that does so
.previous/NAME/        the version before an update
NAME/.source.json      where a model came from: a Listing, with the patterns that chose its files
"""

import contextlib
import fcntl
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from src.download.errors import DownloadError, InvalidReference
from src.download.reference import Reference, parse_path
from src.download.source import Listing

DOWNLOADS, PREVIOUS, RECORD = ".downloads", ".previous", ".source.json"
MAX_RECORD = 16 * 2**20  # bytes


class Record(msgspec.Struct, frozen=True):
    listing: Listing
    include: list[str]

    def reference(self, name: str) -> Reference:
        """What it says, parsed anew: the file may be a repository's own. Raises InvalidReference."""
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.!_-]{0,99}", self.listing.commit):
            raise InvalidReference("commit", "must be a commit or a version")
        for file in self.listing.files:
            try:
                parse_path(file.path)
            except ValueError as error:
                raise InvalidReference("files", f"must not have a path {error}") from None
        listing = self.listing
        return Reference.parse(listing.repo, listing.source, name=name, revision=listing.revision, include=self.include)


class Store:
    def __init__(self, models_dir: Path) -> None:
        self.root = models_dir

    def place(self, name: str) -> Path:
        return self.root / name

    def staging(self, name: str) -> Path:
        return self.root / DOWNLOADS / name

    def previous(self, name: str) -> Path:
        return self.root / PREVIOUS / name

    @contextlib.contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Only one process downloads a model at a time; the lock ends with the process. Raises DownloadError."""
        path = self.root / DOWNLOADS / f"{name}.lock"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise DownloadError(f"cannot write to {path.parent}: {error.strerror}: make it a folder this user may write to") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        except BlockingIOError as error:
            raise DownloadError(f"{name} is being downloaded by another process: wait for it") from error
        finally:
            os.close(descriptor)

    def record(self, name: str) -> Record | None:
        """Where a model came from; None where it was not downloaded by these scripts."""
        path = self.place(name) / RECORD
        try:
            if path.is_symlink() or not path.is_file():  # no script makes it one; a pipe would be waited for
                return None
            with path.open("rb") as file:
                return msgspec.json.decode(file.read(MAX_RECORD), type=Record)
        except (OSError, msgspec.MsgspecError):
            return None

    def downloaded(self) -> dict[str, Record]:
        """Every model that was downloaded, by name."""
        names = sorted(path.name for path in self.root.iterdir() if not path.name.startswith(".")) if self.root.is_dir() else []
        return {name: record for name in names if (record := self.record(name))}

    def has_room(self, name: str, size: int) -> None:
        """Raises DownloadError where so many bytes more do not fit on the disk."""
        free = shutil.disk_usage(self.root).free
        if size > free:
            raise DownloadError(
                f"{name} needs {size / 1e9:.2f} GB more, and {free / 1e9:.2f} GB are free in {self.root}: make room, then run it again"
            )

    def is_free(self, name: str) -> None:
        """Raises DownloadError where something of this name lies in the models folder: it is the operator's, or another model."""
        if os.path.lexists(self.place(name)):
            raise DownloadError(f"{self.place(name)} is there already and came from elsewhere: choose another --name, or remove it")

    def complete(self, name: str, listing: Listing, include: Sequence[str]) -> Path:
        """Make a staged model ready to be installed: nothing of the clients' own is left in it, and its origin is noted."""
        staging = self.staging(name)
        for own in (".cache", ".lock", "._____temp"):
            shutil.rmtree(staging / own, ignore_errors=True)
        (staging / RECORD).write_bytes(msgspec.json.encode(Record(listing, list(include))))
        for path in [*staging.rglob("*"), staging]:
            descriptor = os.open(path, os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)
        return staging

    def install(self, name: str) -> None:
        """Put a staged model into its place in one step. Raises DownloadError where something came there meanwhile."""
        self.is_free(name)
        self.staging(name).rename(self.place(name))

    def replace(self, name: str) -> None:
        """Put a staged model in the place of an earlier version, which becomes the previous one. Raises DownloadError where what is
        there is no download."""
        place, previous = self.place(name), self.previous(name)
        if self.record(name) is None:
            raise DownloadError(f"{place} is no download any more: it was not replaced")
        previous.parent.mkdir(exist_ok=True)
        shutil.rmtree(previous, ignore_errors=True)
        place.rename(previous)
        self.staging(name).rename(place)

    def recover(self, name: str) -> None:
        """An update that was killed between its two renames."""
        if self.previous(name).exists() and not self.place(name).exists():
            self.previous(name).rename(self.place(name))

    def roll_back(self, name: str) -> None:
        """Put the previous version back; what was there is gone on from by the next update. Raises DownloadError."""
        if not self.previous(name).exists():
            raise DownloadError(f"{name} has no version before this one: only the last update can be taken back")
        shutil.rmtree(self.staging(name), ignore_errors=True)
        self.place(name).rename(self.staging(name))
        self.previous(name).rename(self.place(name))
