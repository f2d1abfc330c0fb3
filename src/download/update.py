"""What has changed at the sources of downloaded models, and taking it over. Loads no model: whoever calls says how one is tried."""

from collections.abc import Callable
from pathlib import Path

import msgspec

from src.download.errors import DownloadError
from src.download.fetch import SOURCES, stage
from src.download.reference import Reference
from src.download.source import Listing
from src.download.store import Record, Store


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """What an update of one model would do."""

    reference: Reference
    record: Record
    new: Listing
    added: list[str]
    removed: list[str]
    changed: list[str]

    def __str__(self) -> str:
        parts = [f"{sign}{path}" for sign, paths in (("+", self.added), ("-", self.removed), ("~", self.changed)) for path in paths]
        size = sum(file.size for file in self.new.files if file.path in {*self.added, *self.changed})
        files = f": {' '.join(parts[:12])}{' …' if len(parts) > 12 else ''} ({size / 1e6:,.1f} MB)" if parts else ""
        return f"{self.reference.name}: {self.record.listing.commit[:12]} -> {self.new.commit[:12]}{files}"


def find_change(name: str, record: Record) -> Change | None:
    """None where the source has what is here. Raises DownloadError."""
    reference = record.reference(name)
    source = SOURCES[reference.source]
    new = source.choose(source.list(reference), reference.include)
    before, after = ({file.path: (file.size, file.digest) for file in listing.files} for listing in (record.listing, new))
    if before == after:
        return None
    return Change(
        reference=reference,
        record=record,
        new=new,
        added=sorted(after.keys() - before.keys()),
        removed=sorted(before.keys() - after.keys()),
        changed=sorted(path for path in before.keys() & after.keys() if before[path] != after[path]),
    )


def update(store: Store, change: Change, try_out: Callable[[Path], None]) -> None:
    """Download the new version beside the old one, try it, put it in its place; the old one is kept as the previous one.

    `try_out` raises DownloadError where the new version's folder does not load: then nothing has changed.
    """
    name = change.reference.name
    with store.lock(name):
        store.recover(name)
        _link_what_stays(store, change)
        stage(store, change.reference)
        try_out(store.staging(name))
        store.replace(name)


def roll_back(store: Store, name: str) -> None:
    """The version before the last update. Raises DownloadError."""
    with store.lock(name):
        store.recover(name)
        store.roll_back(name)


def _link_what_stays(store: Store, change: Change) -> None:
    """Files that are the same in both versions need not come again: the clients find them there, and replace, never rewrite, files."""
    before = {file.path: file for file in change.record.listing.files}
    place, staging = store.place(change.reference.name), store.staging(change.reference.name)
    for file in change.new.files:
        source, target = place / file.path, staging / file.path
        if before.get(file.path) == file and source.is_file() and not target.exists():
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                target.hardlink_to(source)
            except OSError as error:
                if error.errno is None:
                    raise DownloadError(str(error)) from error
                return  # this file system has no links: then all of it is fetched
