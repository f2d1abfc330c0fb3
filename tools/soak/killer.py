"""Kills processes of the server by SIGKILL, as an operating system does that wants memory. Knows no request.

The time is in three parts: at first every role is killed, then the runner alone, so that gateway and manager grow old under fire,
and then nobody, so that the runner does too: what leaks shows in the old.
"""

import asyncio
import contextlib
import os
import random
import signal
import time
from typing import Any

import msgspec

from tools.soak.service import Service

FIRST_PART, SECOND_PART = 1 / 3, 2 / 3
ROLES = ("runner",) * 8 + ("gateway", "manager")
NOTICED_SECONDS = 90.0
MOST_IN_A_ROW = 3  # before the model can be asked again: with six, as documented, it is given up


class Kill(msgspec.Struct, kw_only=True):
    """`back`: seconds till the model could be asked again, further kills included; None: not within 90 s."""

    at: float
    role: str
    pid: int
    loading: bool  # whether the model was being loaded at that moment
    back: float | None = None


class Killer:
    def __init__(self, service: Service, every: float, seconds: float, seed: int) -> None:
        """`every`: seconds from one kill to the next, by half more or less; `seconds`: of the whole."""
        self.kills: list[Kill] = []
        self.gateway_kills: list[float] = []  # in time.monotonic() seconds
        self._service, self._every, self._seconds = service, every, seconds
        self._draw = random.Random(seed)
        self._looking: set[asyncio.Task[None]] = set()
        self._began = time.monotonic()

    async def run(self) -> None:
        self._began = time.monotonic()
        number = 0
        while True:
            pause = self._every * self._draw.uniform(0.5, 1.5)
            await asyncio.sleep(pause)
            passed = (time.monotonic() - self._began) / self._seconds
            if passed >= SECOND_PART:
                return
            # In turn from the end: a short run kills each role once.
            role = ROLES[-1 - number % len(ROLES)] if passed < FIRST_PART else "runner"
            number += 1
            await self._kill(role)

    async def _kill(self, role: str) -> None:
        status = await self._service.status()
        pids = [use["pid"] for use in status["processes"] if use["name"] == role] if status else []
        if not status or not pids:
            return  # it is dead as it is
        if all(kill.back is None for kill in self.kills[-MOST_IN_A_ROW:]) and len(self.kills) >= MOST_IN_A_ROW:
            return
        pid = self._draw.choice(pids)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            loading = all(model["state"] != "ready" for model in status["models"])
            kill = Kill(at=round(time.monotonic() - self._began, 2), role=role, pid=pid, loading=loading)
            self.kills.append(kill)
            if role == "gateway":
                self.gateway_kills.append(time.monotonic())
            self._looking.add(task := asyncio.create_task(self._see_back(kill)))
            task.add_done_callback(self._looking.discard)

    async def _see_back(self, kill: Kill) -> None:
        since = time.monotonic()
        while time.monotonic() - since < NOTICED_SECONDS:
            await asyncio.sleep(0.3)
            status = await self._service.status()
            if status and _is_back(status, kill):
                kill.back = round(time.monotonic() - since, 2)
                return


def _is_back(status: dict[str, Any], kill: Kill) -> bool:
    pids = [use["pid"] for use in status["processes"] if use["name"] == kill.role]
    return kill.pid not in pids and bool(pids) and any(model["state"] == "ready" for model in status["models"])
