"""One process of a runner, from its start to its exit: what it reports while it loads, and how it ended."""

import asyncio
import contextlib
import signal
import sys
import time
from asyncio.subprocess import PIPE, Process
from typing import NamedTuple

import msgspec

from src import ROOT
from src.errors import ModelLoadFailed
from src.manager import memory
from src.protocol import MAX_LINE_BYTES, Failed, RunnerLoading, RunnerReady, RunnerReport, decode, launch
from src.protocol.launch import RunnerSpec
from src.protocol.management import NO_NUMBERS


class Attempt(NamedTuple):
    """One way to load a model: what its runner is told, the bytes that it is expected to take and that were free, its environment."""

    spec: RunnerSpec
    bytes: int
    free: int
    environ: dict[str, str]


class CrashedLoading(Exception):
    """The process ended before its model was loaded. `how`: as Child.exit() says it."""

    def __init__(self, how: str) -> None:
        hint = "; most often the kernel, because memory ran out" if how == "signal SIGKILL" else ""
        super().__init__(f"its runner crashed while loading ({how}{hint})")
        self.how = how


class Child:
    """stage: reading_weights, warming_up. Times in time.monotonic() seconds."""

    def __init__(self, process: Process, started_at: float, oom_kills: int) -> None:
        self.stage = "reading_weights"
        self.started_at = started_at
        self.ready_at = 0.0
        self.first_private_bytes = 0  # once it was ready
        self._process = process
        self._oom_kills = oom_kills  # of this machine, before it was started
        self._killed_for: str | None = None

    @classmethod
    async def start(cls, attempt: Attempt) -> "Child":
        """Raises OSError."""
        started_at, oom_kills = time.monotonic(), memory.oom_kills()
        # Its standard input is a pipe that nothing is written to: its end tells the runner that the manager is gone.
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "src.runner", msgspec.json.encode(attempt.spec).decode(),
            stdin=PIPE, stdout=PIPE, env=attempt.environ, cwd=ROOT, limit=MAX_LINE_BYTES,
        )  # fmt: skip
        return cls(process, started_at, oom_kills)

    @property
    def pid(self) -> int:
        return self._process.pid

    async def report(self) -> RunnerLoading | RunnerReady:
        """The next line that it prints while it loads. Raises ModelLoadFailed with its reason, CrashedLoading, ProtocolError."""
        assert self._process.stdout
        line = await self._process.stdout.readline()
        if not line:
            raise CrashedLoading(await self.exit())
        report: RunnerLoading | RunnerReady | Failed = decode(line, RunnerReport)
        if isinstance(report, Failed):
            raise ModelLoadFailed(report.message)
        if isinstance(report, RunnerLoading):
            self.stage = report.stage
        else:
            self.ready_at = time.monotonic()
            self.first_private_bytes = memory.private_bytes(self.pid)
        return report

    async def exit(self) -> str:
        """Wait for it to end. How it did: "signal SIGSEGV", "exit status 1", or why it was killed."""
        code = await self._process.wait()
        if self._killed_for:
            return self._killed_for
        if code == launch.NO_NUMBERS:
            return NO_NUMBERS
        if code == -signal.SIGKILL and memory.oom_kills() > self._oom_kills:
            return "signal SIGKILL, because the machine was out of memory"
        return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"

    async def has_served(self) -> bool:
        """Whether it had answered a request; asked once it has ended."""
        assert self._process.stdout
        return bool(await self._process.stdout.read())

    async def terminate(self, grace: float) -> bool:
        """Ask it to end after its running requests. False where it has not within `grace` seconds."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.terminate()
        try:
            await asyncio.wait_for(self._process.wait(), grace)
        except asyncio.TimeoutError:
            return False
        return True

    async def kill(self, reason: str | None = None) -> None:
        """`reason`: what exit() says then."""
        self._killed_for = reason or self._killed_for
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()
