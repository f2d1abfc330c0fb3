"""What a benchmark's file holds, and the machine it was made on. Knows no figures: they are computed from the raw times."""

import datetime
import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import msgspec
import psutil

from tools.bench.limit import Limit
from tools.bench.workloads import Round


class Machine(msgspec.Struct, kw_only=True):
    processor: str
    cores: int  # physical
    usable_cpus: int  # logical, that this process may use
    memory_bytes: int
    system: str


class Report(msgspec.Struct, kw_only=True):
    """One benchmark. `rounds[workload][server]` lie in the order they were run; servers take turns."""

    date: str
    argv: list[str]
    seed: int
    machine: Machine
    versions: dict[str, str]
    servers: dict[str, dict[str, Any]]  # by name: url and what the server says of itself
    rounds: dict[str, dict[str, list[Round]]] = {}
    limit: list[Limit] = []

    def add(self, workload: str, server: str, measured: Round) -> None:
        self.rounds.setdefault(workload, {}).setdefault(server, []).append(measured)

    def write(self, path: Path) -> None:
        """Times with microseconds: more digits are noise."""
        plain = msgspec.to_builtins(self)
        path.write_bytes(msgspec.json.encode(_rounded(plain)) + b"\n")


def load(path: Path) -> Report:
    """Raises OSError, or msgspec.DecodeError or msgspec.ValidationError for a file that is no report."""
    return msgspec.json.decode(path.read_bytes(), type=Report)


def begin(seed: int, servers: dict[str, dict[str, Any]]) -> Report:
    """An empty report of this machine, now."""
    return Report(
        date=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        argv=sys.argv,
        seed=seed,
        machine=machine(),
        versions={"python": platform.python_version(), **{name: _version(name) for name in ("llama-cpp-python", "gunicorn", "gevent")}},
        servers=servers,
    )


def machine() -> Machine:
    if sys.platform == "linux":
        usable = len(os.sched_getaffinity(0))
    else:
        usable = os.cpu_count() or 1
    return Machine(
        processor=_processor(),
        cores=psutil.cpu_count(logical=False) or usable,
        usable_cpus=usable,
        memory_bytes=psutil.virtual_memory().total,
        system=platform.platform(),
    )


def _processor() -> str:
    try:
        names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
        return names[0].partition(":")[2].strip()
    except (OSError, IndexError):  # not Linux, or a processor that gives no name there
        return platform.processor() or platform.machine()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 6)
    if isinstance(value, list):
        return [_rounded(each) for each in value]
    if isinstance(value, dict):
        return {key: _rounded(each) for key, each in value.items()}
    return value
