"""What was measured on this machine, kept in files, so that each thing is measured once. Knows not what it means."""

import contextlib
import hashlib
import os
import platform
import tempfile
from pathlib import Path
from typing import TypeVar

import msgspec

FOLDER = "llm-inference-service/measurements"
T = TypeVar("T")
Key = dict[str, int | str]  # all that the figures depend on


def folder(fallback: Path) -> Path:
    """In this user's cache, so that it outlives the server; in the fallback where nothing can be written there."""
    with contextlib.suppress(OSError, RuntimeError):  # a user without a home
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / FOLDER
        cache.mkdir(parents=True, exist_ok=True)
        if os.access(cache, os.R_OK | os.W_OK):
            return cache
    return fallback / "measurements"


def kept(folder: Path, key: Key, kind: type[T]) -> T | None:
    """What was kept under this key. None where there is nothing that can be read."""
    try:
        return msgspec.json.decode(_path(folder, key).read_bytes(), type=kind)
    except (OSError, msgspec.DecodeError):
        return None


def keep(folder: Path, key: Key, value: T, kind: type[T]) -> T:
    """Keep it. Returns what another process has kept under this key meanwhile, so that all of them use the same.

    Where the folder cannot be written to, nothing is kept.
    """
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".") as file:
            file.write(msgspec.json.encode(value))
            file.flush()
            path = _path(folder, key)
            if kept(folder, key, kind) is None:  # what cannot be read makes way
                path.unlink(missing_ok=True)
            with contextlib.suppress(FileExistsError):
                os.link(file.name, path)
    return kept(folder, key, kind) or value


def processor() -> str:
    """This machine's processor: its name and what it can do, as the system tells."""
    with contextlib.suppress(OSError):
        first = Path("/proc/cpuinfo").read_text(errors="replace").split("\n\n")[0]
        names = ("vendor_id", "model name", "cpu family", "model", "stepping", "flags", "Features", "CPU implementer", "CPU part")
        return "\n".join(line for line in first.splitlines() if line.split("\t")[0].strip() in names)
    return f"{platform.machine()} {platform.processor()}"


def _path(folder: Path, key: Key) -> Path:
    name = hashlib.sha256(msgspec.json.encode(key, order="sorted")).hexdigest()[:32]
    return folder / f"{name}.json"
