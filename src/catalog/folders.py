"""A walk over the models folder: weight files, configs and half-downloaded files by folder. Opens none of them."""

import contextlib
import errno
import itertools
import math
import os
import re
import stat
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from src.catalog.bounds import Bounds, CutOff
from src.catalog.stamps import Stamps
from src.hf_folder import TEMPLATES

# What downloaders call a file that they are still writing: huggingface-hub, modelscope (also its parallel parts), curl, aria2,
# Chrome, wget.
_PARTIAL = re.compile(r".+\.(gguf|safetensors)(\.incomplete|\.parallel_tmp|\.part|\.tmp|\.aria2|\.crdownload|\.download|_\d+_\d+)")
_WEIGHTS, _CONFIGS = (".gguf", ".safetensors"), (".json", ".jinja")
STORE = ("manifests", "blobs")  # folders that make the one around them Ollama's store
_OWNER = re.compile(r"(?:models--)?[^/]+?--(?P<name>.+)")  # of the hubs' caches: models--owner--name, owner--name


class WeightFile(NamedTuple):
    path: Path
    size: int
    modified_ns: int
    inode: int
    device: int


class Unreadable(NamedTuple):
    path: Path
    error: OSError

    def __str__(self) -> str:
        return f"{self.path} may not be read: {self.error.strerror}"

    @property
    def may_change_unseen(self) -> bool:
        """Whether it can become readable while its stat stays: macOS grants access (EPERM) and shares come back in that way."""
        return self.error.errno != errno.EACCES

    @property
    def remedy(self) -> str:
        return "Let this user read it, or move it"

    @property
    def lost(self) -> str | None:
        """What became of a folder that was read before: its device fails or is gone. None where it is a matter of rights."""
        return None if self.error.errno in (errno.EACCES, errno.EPERM) else f"{self.path} cannot be read: {self.error.strerror}"


class Missing(NamedTuple):
    """A folder of MODELS_DIR that should be there."""

    path: Path

    def __str__(self) -> str:
        return f"{self.path} is not there"

    @property
    def may_change_unseen(self) -> bool:
        return False

    @property
    def remedy(self) -> str:
        return RECONNECT

    @property
    def lost(self) -> str | None:
        return f"its folder {self}"


RECONNECT = "Connect its volume again, or remove the folder from MODELS_DIR"
MOST_UNREADABLE = 20  # are told
_NOT_THERE = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}  # a broken link, or gone since it was listed


class Folder(NamedTuple):
    path: Path
    name: str  # of a model that is the whole folder
    weights: list[WeightFile]
    configs: list[WeightFile]
    partial: list[WeightFile]
    is_ollama: bool = False  # Ollama's store: what lies in it is told by its manifests


class _Step(NamedTuple):
    """A folder that the walk comes to."""

    path: Path
    name: str
    place: Path  # what it lies in, or is, directly in the models folder
    depth: int = 0
    above: frozenset[tuple[int, int]] = frozenset()  # the folders on the way to it
    is_link: bool = False
    is_below_link: bool = False


class _CutOff(Exception):
    """Carries a CutOff."""


Unseen = Unreadable | Missing | CutOff


def walk(root: Path, stamps: Stamps, unseen: list[Unseen]) -> Iterator[Folder]:
    """`root` and every folder below it, within bounds. Follows links; of several revisions in a cache, one.

    `stamps` get all that can change what is found, `unseen` what it may not look at and what was cut off.
    """
    return _Walk(root, stamps, unseen).folders()


class _Walk:
    """Looks at the models folder's own folders first, at what links lead to afterwards: no link takes their room from them.

    A link may give a folder a second name. A link in what a link led to may not: such links can lead on without an end.
    """

    def __init__(self, root: Path, stamps: Stamps, unseen: list[Unseen]) -> None:
        self._root, self._stamps, self._unseen = root, stamps, unseen
        self._bounds = Bounds()
        self._walked: set[tuple[int, int]] = set()

    def folders(self) -> Iterator[Folder]:
        own, links = [_Step(self._root, "", self._root)], deque[_Step]()
        while own or links:
            step = own.pop() if own else links.popleft()
            began = time.monotonic()
            try:
                found, inner = self._look(step)
            except OSError as error:
                self._tell(step.path, error)
                continue
            except _CutOff as cut:
                self._tell_cut(cut.args[0])
                continue
            finally:
                if step.is_link or step.is_below_link:
                    self._bounds.spend(step.place, seconds=time.monotonic() - began)
            if found:
                yield found
            own += [each for each in reversed(inner) if not each.is_link]
            links += [each for each in inner if each.is_link]

    def _look(self, step: _Step) -> tuple[Folder | None, list[_Step]]:
        """A folder and those in it; None and none where it was looked at already. Raises OSError, _CutOff."""
        here = self._stamps.look(step.path)
        me = (here.st_dev, here.st_ino)
        if me in step.above or (step.is_link and step.is_below_link and me in self._walked):
            return None, []
        self._walked.add(me)
        if cut := self._bounds.refusal(step.path, step.place, here.st_dev, step.depth):
            raise _CutOff(cut)
        found = Folder(step.path, step.name, [], [], [])
        inner: list[_Step] = []
        for entry, info in self._entries(step):
            path = step.path / entry.name
            file = WeightFile(path, info.st_size, info.st_mtime_ns, info.st_ino, info.st_dev)
            if stat.S_ISDIR(info.st_mode):
                if path.name == TEMPLATES:
                    found.configs.extend(self._templates(step, path))
                elif path.suffix not in (".part", ".tmp"):
                    inner.append(self._inner(step, me, path, is_link=entry.is_symlink()))
            elif not stat.S_ISREG(info.st_mode):
                continue
            elif path.suffix in _WEIGHTS:
                found.weights.append(file)
            elif path.suffix in _CONFIGS:
                found.configs.append(file)
            elif _PARTIAL.fullmatch(path.name):
                found.partial.append(file)
        if step.path.name == "snapshots" and inner:
            current = _current(step.path, [each.path for each in inner], self._stamps)
            inner = [each for each in inner if each.path == current]
        store = [each for each in inner if each.path.name in STORE]
        if len(store) == len(STORE) and not found.weights:
            return found._replace(is_ollama=True), [each for each in inner if each not in store]
        return found, inner

    def _inner(self, step: _Step, me: tuple[int, int], path: Path, *, is_link: bool) -> _Step:
        # A revision's folder is called after a commit: its name is the repository's, two folders up.
        name = step.name if "snapshots" in (step.path.name, path.name) else repository(path.name)
        place = path if step.path == self._root else step.place
        below_link = step.is_link or step.is_below_link
        return _Step(path, name, place, step.depth + 1, step.above | {me}, is_link, below_link)

    def _entries(self, step: _Step) -> Iterator[tuple["os.DirEntry[str]", os.stat_result]]:
        """What lies in a folder and may be of use, in order. Raises OSError, _CutOff."""
        is_linked = step.is_link or step.is_below_link
        ends_at = time.monotonic() + self._bounds.seconds_left(step.place) if is_linked else math.inf
        for entry in self._names(step):
            if time.monotonic() >= ends_at:
                raise _CutOff(self._bounds.too_slow(step.place))
            path = step.path / entry.name
            try:
                if _matters(entry):
                    yield entry, self._stamps.look(path)
            except OSError as error:
                self._tell(path, error)

    def _names(self, step: _Step, folder: Path | None = None) -> list["os.DirEntry[str]"]:
        """Raises OSError, _CutOff."""
        left = self._bounds.names_left(step.place, is_root=step.path == self._root)
        with os.scandir(folder or step.path) as entries:
            names = list(itertools.islice(entries, max(left, 0) + 1))
        self._bounds.spend(step.place, min(len(names), max(left, 0)))
        if len(names) > left:
            raise _CutOff(self._bounds.too_many(step.place))
        return sorted((entry for entry in names if _is_visible(entry.name)), key=lambda entry: entry.name)

    def _templates(self, step: _Step, folder: Path) -> Iterator[WeightFile]:
        """Chat templates beside the model's own: a change of one is a change of the model."""
        with contextlib.suppress(OSError):
            for entry in self._names(step, folder):
                if entry.name.endswith(".jinja"):
                    with contextlib.suppress(OSError):
                        path = folder / entry.name
                        info = self._stamps.look(path)
                        yield WeightFile(path, info.st_size, info.st_mtime_ns, info.st_ino, info.st_dev)

    def _tell(self, path: Path, error: OSError) -> None:
        if error.errno not in _NOT_THERE and len(self._unseen) < MOST_UNREADABLE:
            self._unseen.append(Unreadable(path, error))

    def _tell_cut(self, cut: CutOff) -> None:
        """A place is told once, however many folders of it are left."""
        if len(self._unseen) < MOST_UNREADABLE and not any(str(each) == str(cut) for each in self._unseen):
            self._unseen.append(cut)


def _matters(entry: "os.DirEntry[str]") -> bool:
    """Whether it can be a part of a model, or lead to one. Other files are not even looked at. Raises OSError."""
    if entry.is_symlink() or not entry.is_file(follow_symlinks=False):
        return True
    return entry.name.endswith((*_WEIGHTS, *_CONFIGS)) or _PARTIAL.fullmatch(entry.name) is not None


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
    return max(revisions, key=lambda path: (path.name == commit, _modified(path), path.name))


def _modified(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:  # gone since it was listed
        return 0


def repository(folder: str) -> str:
    """A folder's name without what the hubs' clients make of a repository's: models--owner--name, owner--name, name___1."""
    match = _OWNER.fullmatch(folder)
    return (match["name"] if match else folder).replace("___", ".")
