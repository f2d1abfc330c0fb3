"""A walk over the models folder: weight files, configs and half-downloaded files by folder. Opens none of them."""

import contextlib
import errno
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from src.catalog.stamps import Stamps
from src.hf_folder import TEMPLATES

# What downloaders call a file that they are still writing: huggingface-hub, modelscope (also its parallel parts), curl, aria2,
# Chrome, wget.
_PARTIAL = re.compile(r".+\.(gguf|safetensors)(\.incomplete|\.parallel_tmp|\.part|\.tmp|\.aria2|\.crdownload|\.download|_\d+_\d+)")
_OWNER = re.compile(r"(?:models--)?[^/]+?--(?P<name>.+)")  # of the hubs' caches: models--owner--name, owner--name


class WeightFile(NamedTuple):
    path: Path
    size: int
    modified_ns: int
    inode: int


class Unreadable(NamedTuple):
    path: Path
    error: OSError

    def __str__(self) -> str:
        return f"{self.path} may not be read: {self.error.strerror}"

    @property
    def may_change_unseen(self) -> bool:
        """Whether it can become readable while its stat stays: macOS grants access (EPERM) and shares come back in that way."""
        return self.error.errno != errno.EACCES


MOST_UNREADABLE = 20  # are told
_NOT_THERE = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}  # a broken link, or gone since it was listed


class Folder(NamedTuple):
    path: Path
    name: str  # of a model that is the whole folder
    weights: list[WeightFile]
    configs: list[WeightFile]
    partial: list[WeightFile]


def walk(
    root: Path, stamps: Stamps, unreadable: list[Unreadable], name: str = "", above: frozenset[tuple[int, int]] = frozenset()
) -> Iterator[Folder]:
    """`root` and every folder below it. Follows links, but not in circles; of several revisions in a cache, one.

    `stamps` get all that it looks at, `unreadable` what it may not look at.
    """
    weights: list[WeightFile] = []
    configs: list[WeightFile] = []
    partial: list[WeightFile] = []
    subfolders: list[Path] = []
    try:
        here = stamps.look(root)
        names = sorted(filter(_is_visible, os.listdir(root)))
    except OSError as error:
        _tell(unreadable, root, error)
        return
    if (here.st_dev, here.st_ino) in above:
        return
    for path in (root / name for name in names):
        try:
            info = stamps.look(path)
        except OSError as error:
            _tell(unreadable, path, error)
            continue
        file = WeightFile(path, info.st_size, info.st_mtime_ns, info.st_ino)
        if stat.S_ISDIR(info.st_mode):
            if path.name == TEMPLATES:
                configs += _templates(path, stamps)
            elif path.suffix not in (".part", ".tmp"):
                subfolders.append(path)
        elif not stat.S_ISREG(info.st_mode):
            continue
        elif path.suffix in (".gguf", ".safetensors"):
            weights.append(file)
        elif path.suffix in (".json", ".jinja"):
            configs.append(file)
        elif _PARTIAL.fullmatch(path.name):
            partial.append(file)
    yield Folder(root, name, weights, configs, partial)
    if root.name == "snapshots" and subfolders:
        subfolders = [_current(root, subfolders, stamps)]
    for subfolder in subfolders:
        # A revision's folder is called after a commit: its name is the repository's, two folders up.
        inner = name if "snapshots" in (root.name, subfolder.name) else repository(subfolder.name)
        yield from walk(subfolder, stamps, unreadable, inner, above | {(here.st_dev, here.st_ino)})


def _tell(unreadable: list[Unreadable], path: Path, error: OSError) -> None:
    if error.errno not in _NOT_THERE and len(unreadable) < MOST_UNREADABLE:
        unreadable.append(Unreadable(path, error))


def _templates(folder: Path, stamps: Stamps) -> list[WeightFile]:
    """Chat templates beside the model's own: a change of one is a change of the model."""
    files = []
    for path in sorted(folder.glob("*.jinja")):
        with contextlib.suppress(OSError):
            info = stamps.look(path)
            files.append(WeightFile(path, info.st_size, info.st_mtime_ns, info.st_ino))
    return files


def _is_visible(name: str) -> bool:
    # A name that cannot be printed (control characters, bytes that are not UTF-8) could not be sent as JSON either.
    return name.isprintable() and not name.startswith(".") and name != "lost+found"  # every ext4's own, for root alone


def _current(snapshots: Path, revisions: list[Path], stamps: Stamps) -> Path:
    """Of the revisions in a hub's cache the one that its "main" is, else the newest."""
    main = snapshots.parent / "refs" / "main"
    try:
        if not stat.S_ISREG(stamps.look(main).st_mode):  # a pipe would be waited for
            raise FileNotFoundError
        with main.open(encoding="ascii") as file:
            commit = file.read(100).strip()
    except (OSError, UnicodeError):
        commit = ""
    return max(revisions, key=lambda path: (path.name == commit, path.stat().st_mtime_ns, path.name))


def repository(folder: str) -> str:
    """A folder's name without what the hubs' clients make of a repository's: models--owner--name, owner--name, name___1."""
    match = _OWNER.fullmatch(folder)
    return (match["name"] if match else folder).replace("___", ".")
