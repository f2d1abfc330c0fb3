"""Memory, descriptors and threads of each of the server's processes over time. Kills nothing, judges nothing."""

import asyncio
import contextlib
import time
from typing import Any

import msgspec
import psutil

from tools.soak.service import Service


class Sample(msgspec.Struct, array_like=True):
    """`at`: seconds since the start. Descriptors are -1 where the system does not tell them."""

    at: float
    rss: int
    descriptors: int
    threads: int


class Life(msgspec.Struct):
    """One process, from its first sample to its last."""

    role: str  # master, gateway, manager, runner
    pid: int
    born: float  # seconds since the start; of those that were there before, less than 0
    samples: list[Sample] = []

    def ages(self) -> list[tuple[float, int]]:
        """Its age in seconds, and its memory."""
        return [(sample.at - self.born, sample.rss) for sample in self.samples]


class Rest(msgspec.Struct):
    """The server without a request: what is held then is held for good."""

    running: int = 0
    waiting: int = 0
    kv_used_tokens: int = 0
    processes: dict[str, list[Sample]] = {}  # by role


class Watch:
    def __init__(self, service: Service, pause: float) -> None:
        self.lives: list[Life] = []
        self._service, self._pause = service, pause
        self._by_pid: dict[int, Life] = {}
        self._began, self._began_at = time.monotonic(), time.time()

    async def run(self) -> None:
        """Till it is cancelled."""
        self._began, self._began_at = time.monotonic(), time.time()
        while True:
            if status := await self._service.status():
                self._take(status)
            await asyncio.sleep(self._pause)

    async def rest(self, seconds: float) -> Rest:
        """Once nothing runs and waits any more, or after so many seconds."""
        give_up = time.monotonic() + seconds
        while True:
            status = await self._service.status() or {"requests": {"running": -1, "waiting": -1, "kv_used_tokens": -1}, "processes": []}
            of = status["requests"]
            if of["running"] == of["waiting"] == 0 or time.monotonic() > give_up:
                found = Rest(of["running"], of["waiting"], of["kv_used_tokens"], {})
                for role, pid, sample in self._samples(status):
                    assert pid
                    found.processes.setdefault(role, []).append(sample)
                return found
            await asyncio.sleep(0.5)

    def _take(self, status: dict[str, Any]) -> None:
        for role, pid, sample in self._samples(status):
            life = self._by_pid.get(pid)
            if life is None or life.role != role:  # ids are given again
                life = self._by_pid[pid] = Life(role, pid, self._born(pid), [])
                self.lives.append(life)
            life.samples.append(sample)

    def _samples(self, status: dict[str, Any]) -> list[tuple[str, int, Sample]]:
        found = []
        for use in status["processes"]:
            with contextlib.suppress(psutil.Error):  # gone since, or another machine's
                process = psutil.Process(use["pid"])
                at = round(time.monotonic() - self._began, 2)
                found.append((use["name"], use["pid"], Sample(at, process.memory_info().rss, process.num_fds(), process.num_threads())))
        return found

    def _born(self, pid: int) -> float:
        with contextlib.suppress(psutil.Error):
            return round(psutil.Process(pid).create_time() - self._began_at, 2)
        return 0.0
