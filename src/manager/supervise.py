"""One runner's life: started, waited for, watched, started again when it dies, stopped. Knows nothing of other models."""

import asyncio
import contextlib
import math
import os
import signal
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections import deque
from pathlib import Path
from typing import NamedTuple

import msgspec

from src import logs
from src.catalog import ModelEntry
from src.errors import EngineUnavailable, ModelLoadFailed, ServiceError
from src.manager import memory
from src.manager.metrics import families as figures
from src.manager.metrics.count import TokenMeter
from src.protocol import (
    MAX_LINE_BYTES,
    AskStats,
    Failed,
    ProtocolError,
    RunnerEvent,
    RunnerLoading,
    RunnerReady,
    RunnerReport,
    RunnerStats,
    decode,
    encode,
)
from src.spec import RunnerSpec

BACKOFF = (0, 1, 2, 4, 8)  # seconds before each start after a death; one death more and the model has failed
QUIET_SECONDS = 0.5  # without a request: a gateway that was told of this runner has reached it by then
LONGEST_WAIT = 120  # seconds: SDKs do not try again by themselves where they are told more
STEADY_SECONDS = 600  # a runner that lived so long starts with no deaths counted


class Attempt(NamedTuple):
    """One way to load a model: what its runner is told, the bytes that it is expected to take, its process's environment."""

    spec: RunnerSpec
    bytes: int
    environ: dict[str, str]


class Supervised:
    """A model that is loaded, being loaded, or has failed. state: loading, ready, failed, unloading, gone."""

    def __init__(self, entry: ModelEntry, attempts: list[Attempt], *, proven: bool = False) -> None:
        """`attempts`: the first that loads is kept. `proven`: it was loaded before, by the manager before this one."""
        self.entry = entry
        self.state = "loading"
        self.stage = "reading_weights"  # of the load: reading_weights, warming_up
        self.reason: str | None = None
        self.note: str | None = None  # which engines did not load it, where another does
        self.ready: RunnerReady | None = None
        self.restarts = 0
        self.last_death: str | None = None
        self.used_at = time.monotonic()
        self.ready_at = 0.0  # in time.monotonic() seconds
        self.back_in = 1  # seconds that its process took to start and to load, as it is told to who has to come again
        self.replace_tried_at = 0.0  # the last time a successor was tried, in time.monotonic() seconds
        self.first_private_bytes = 0  # of its process once it was ready
        self._attempts = deque(attempts)
        self._process: Process | None = None
        self._deaths = 0  # in a row
        self._began_at = time.monotonic()  # of the last load
        self._killed_for: str | None = None
        self._died_loading: str | None = None  # how, in the last load
        self._proven = proven
        self._oom_kills = 0  # of this machine, when the process was started
        self._tokens = TokenMeter(entry.name)
        self._changed = asyncio.Condition()
        self._watch = asyncio.create_task(self._live())

    @property
    def spec(self) -> RunnerSpec:
        return self._attempts[0].spec

    @property
    def expected_bytes(self) -> int:
        return self._attempts[0].bytes

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def loaded_in(self) -> int:
        """About how many seconds a load will still take: by the load before, else by what is read."""
        elapsed = time.monotonic() - self._began_at
        if self.ready:
            left = self.ready.load_seconds - elapsed
        else:
            total = self.entry.facts.weight_bytes
            read = memory.mapped_bytes(self.pid) / total if self.pid and total else 0.0
            left = elapsed * (1 - read) / read if 0.01 < read < 1 else elapsed
        return max(1, min(LONGEST_WAIT, math.ceil(left)))

    async def wait_ready(self) -> None:
        """Returns once the model can be asked. Raises ModelLoadFailed when it has failed, EngineUnavailable when unloaded."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.state != "loading")
        if self.state == "failed":
            raise ModelLoadFailed(f"The model {self.entry.name} did not load: {self.reason}")
        if self.state != "ready" and not self.ready:  # one that was ready a moment ago still answers those who waited for it
            raise EngineUnavailable(f"The model {self.entry.name} is being unloaded.", retry_after=1)

    async def drain(self, limit: float) -> None:
        """Let running requests end, for `limit` seconds at most, and those come that were sent here before; then stop."""
        loaded = self.state == "ready"
        await self._become("unloading")
        give_up = time.monotonic() + limit
        quiet_at = time.monotonic() + QUIET_SECONDS
        while loaded and time.monotonic() < min(quiet_at, give_up):
            await asyncio.sleep(0.1)
            stats = await self.stats()
            if stats and stats.running + stats.waiting:
                quiet_at = time.monotonic() + QUIET_SECONDS
        await self.stop(max(1.0, give_up - time.monotonic()))

    async def stop(self, grace: float) -> None:
        """Let running requests end, for `grace` seconds at most; then the process is gone and its memory returned."""
        await self._become("unloading")
        if self._process and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.terminate()
            try:
                await asyncio.wait_for(self._process.wait(), grace)
            except asyncio.TimeoutError:
                logs.models.warning("Runner {} of {} did not end within {} s and is killed", self.pid, self.entry.name, grace)
                await self._kill()
        self._watch.cancel()
        await asyncio.gather(self._watch, return_exceptions=True)
        await self._kill()
        await self._become("gone")

    async def replace_process(self, why: str) -> None:
        """End a process that will not end by itself; another is started as after any death."""
        self._killed_for = why
        await self._kill()

    async def stats(self) -> RunnerStats | None:
        """What the runner says of its work; None where it cannot say so at once."""
        if self.state not in ("ready", "unloading"):
            return None
        try:
            stats = await asyncio.wait_for(_ask(self.spec.socket), 2)
        except (OSError, asyncio.TimeoutError, ProtocolError):
            return None
        self._tokens.note(stats)
        return stats

    async def _live(self) -> None:
        """Start the runner, and again each time it dies, until it has died too often."""
        while True:
            began = time.monotonic()
            try:
                await self._start()
            except (ServiceError, ProtocolError, OSError) as error:
                await self._kill()
                if self.state == "unloading":  # stopped while it was loading
                    return
                # A model that has loaded before can be loaded: this death is one more, and no reason to give it up.
                if self._died_loading and self._proven:
                    if await self._count_death(self._died_loading, steady=False):
                        continue
                    return
                figures.LOADS.labels(self.entry.name, self.spec.engine, "failed").inc()
                if await self._fall_back(str(error)):
                    continue
                await self._become("failed", f"{self.note}; {self.spec.engine}: {error}" if self.note else str(error))
                logs.models.error("Model {} failed to load: {}", self.entry.name, error)
                return
            reason = self.last_death = await self._death()
            if self.state == "unloading":
                return
            # In a row are those that served nobody: a model must not be given up for some requests that kill it.
            if not await self._count_death(reason, steady=await self._has_served() or time.monotonic() - began > STEADY_SECONDS):
                return

    async def _count_death(self, reason: str, *, steady: bool) -> bool:
        """Whether another is to be started, after a while; else the model has failed. `steady`: it was not a death in a row."""
        self._deaths = 1 if steady else self._deaths + 1
        if self._deaths > len(BACKOFF):
            await self._become("failed", f"its runner died {self._deaths} times in a row, last by {reason}")
            logs.models.error("Model {} is given up: {}", self.entry.name, self.reason)
            return False
        logs.models.error("The runner of {} died ({}) and is started again", self.entry.name, reason)
        self.restarts += 1
        figures.RESTARTS.labels(self.entry.name).inc()
        await self._become("loading")
        await asyncio.sleep(BACKOFF[self._deaths - 1])
        return True

    async def _fall_back(self, reason: str) -> bool:
        """Go on to the next engine, where there is one."""
        if len(self._attempts) == 1 or self.ready:  # one that did load before is the right one
            return False
        failed = self._attempts.popleft().spec.engine
        self.note = f"{self.note}; {failed}: {reason}" if self.note else f"{failed}: {reason}"
        logs.models.error("{} failed to load {} ({}): falling to {}", failed, self.entry.name, reason, self.spec.engine)
        return True

    async def _start(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.spec.socket)
        logs.models.info("Loading {} with {}", self.entry.name, self.spec.engine)
        started_at = time.monotonic()
        # Its standard input is a pipe that nothing is written to: its end tells the runner that the manager is gone.
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "src.runner", msgspec.json.encode(self.spec).decode(),
            stdin=PIPE, stdout=PIPE, env=self._attempts[0].environ, cwd=Path(__file__).parents[2], limit=MAX_LINE_BYTES,
        )  # fmt: skip
        self.stage, self._began_at, self._killed_for = "reading_weights", time.monotonic(), None
        self._died_loading = None
        self._oom_kills = memory.oom_kills()
        self._tokens.restart()
        report = await self._report()
        while isinstance(report, RunnerLoading):
            self.stage = report.stage
            report = await self._report()
        if isinstance(report, Failed):
            raise ModelLoadFailed(report.message)
        self.ready, self.ready_at, self._proven = report, time.monotonic(), True
        self.back_in = max(1, min(LONGEST_WAIT, math.ceil(self.ready_at - started_at)))
        logs.models.info(
            "Model {} is ready after {} s: engine {} {} on {}, context {} tokens, pid {}",
            self.entry.name, report.load_seconds, self.spec.engine, report.engine_version, report.device, report.context_length, self.pid,
        )  # fmt: skip
        figures.LOADS.labels(self.entry.name, self.spec.engine, "ready").inc()
        figures.LOAD_SECONDS.labels(self.entry.name, self.spec.engine).observe(report.load_seconds)
        figures.RESTARTS.labels(self.entry.name)  # 0 is a figure too
        self.first_private_bytes = memory.private_bytes(self._process.pid)
        await self._become("ready")

    async def _report(self) -> RunnerLoading | RunnerReady | Failed:
        assert self._process and self._process.stdout
        line = await self._process.stdout.readline()
        if not line:
            how = self._died_loading = await self._death()
            hint = ", as from a kernel that is out of memory" if how == "signal SIGKILL" else ""
            raise ModelLoadFailed(f"its runner died while loading, by {how}{hint}")
        report: RunnerLoading | RunnerReady | Failed = decode(line, RunnerReport)
        return report

    async def _death(self) -> str:
        """Wait for the process to end; how it did."""
        assert self._process is not None
        code = await self._process.wait()
        if self._killed_for:
            return self._killed_for
        if code == -signal.SIGKILL and memory.oom_kills() > self._oom_kills:
            return "signal SIGKILL, for the machine was out of memory"
        return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"

    async def _has_served(self) -> bool:
        """Whether the process that has ended had answered a request."""
        assert self._process and self._process.stdout
        return bool(await self._process.stdout.read())

    async def _kill(self) -> None:
        if self._process and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()

    async def _become(self, state: str, reason: str | None = None) -> None:
        async with self._changed:
            self.state, self.reason = state, reason
            self._changed.notify_all()


async def _ask(socket: str) -> RunnerStats:
    reader, writer = await asyncio.open_unix_connection(socket, limit=MAX_LINE_BYTES)
    try:
        writer.write(encode(AskStats()))
        stats = decode(await reader.readline(), RunnerEvent)
        if not isinstance(stats, RunnerStats):
            raise ProtocolError("a runner answered AskStats with something else")
        return stats
    finally:
        writer.close()
