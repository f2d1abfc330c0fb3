"""One runner's life: started, waited for, watched, started again when it dies, stopped. Knows nothing of other models."""

import asyncio
import contextlib
import os
import signal
import sys
import time
from asyncio.subprocess import PIPE, Process
from pathlib import Path

import msgspec

from src import logs
from src.catalog import ModelEntry
from src.errors import EngineUnavailable, ModelLoadFailed, ServiceError
from src.protocol import (
    MAX_LINE_BYTES,
    AskStats,
    Failed,
    ProtocolError,
    RunnerEvent,
    RunnerReady,
    RunnerReport,
    RunnerStats,
    decode,
    encode,
)
from src.spec import RunnerSpec

BACKOFF = (0, 1, 2, 4, 8)  # seconds before each start after a death; one death more and the model has failed
STEADY_SECONDS = 600  # a runner that lived so long starts with no deaths counted


class Supervised:
    """A model that is loaded, being loaded, or has failed. state: loading, ready, failed, unloading, gone."""

    def __init__(self, entry: ModelEntry, spec: RunnerSpec, environ: dict[str, str]) -> None:
        self.entry = entry
        self.spec = spec
        self.state = "loading"
        self.reason: str | None = None
        self.ready: RunnerReady | None = None
        self.restarts = 0
        self.used_at = time.monotonic()
        self.ready_at = 0.0  # in time.monotonic() seconds
        self._environ = environ
        self._process: Process | None = None
        self._deaths = 0
        self._changed = asyncio.Condition()
        self._watch = asyncio.create_task(self._live())

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    async def wait_ready(self) -> None:
        """Returns once the model can be asked. Raises ModelLoadFailed when it has failed, EngineUnavailable when unloaded."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.state != "loading")
        if self.state == "failed":
            raise ModelLoadFailed(f"The model {self.entry.name} did not load: {self.reason}")
        if self.state != "ready":
            raise EngineUnavailable(f"The model {self.entry.name} is being unloaded.", retry_after=1)

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

    async def stats(self) -> RunnerStats | None:
        """What the runner says of its work; None where it cannot say so at once."""
        if self.state != "ready":
            return None
        try:
            return await asyncio.wait_for(_ask(self.spec.socket), 2)
        except (OSError, asyncio.TimeoutError, ProtocolError):
            return None

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
                await self._become("failed", str(error))
                logs.models.error("Model {} failed to load: {}", self.entry.name, error)
                return
            reason = await self._death()
            if self.state == "unloading":
                return
            self._deaths = 1 if time.monotonic() - began > STEADY_SECONDS else self._deaths + 1
            if self._deaths > len(BACKOFF):
                await self._become("failed", f"its runner died {self._deaths} times in a row, last by {reason}")
                logs.models.error("Model {} is given up: {}", self.entry.name, self.reason)
                return
            logs.models.error("The runner of {} died ({}) and is started again", self.entry.name, reason)
            self.restarts += 1
            await self._become("loading")
            await asyncio.sleep(BACKOFF[self._deaths - 1])

    async def _start(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.spec.socket)
        logs.models.info("Loading {} with {}", self.entry.name, self.spec.engine)
        # Its standard input is a pipe that nothing is written to: its end tells the runner that the manager is gone.
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "src.runner", msgspec.json.encode(self.spec).decode(),
            stdin=PIPE, stdout=PIPE, env=self._environ, cwd=Path(__file__).parents[2], limit=MAX_LINE_BYTES,
        )  # fmt: skip
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        if not line:
            raise ModelLoadFailed(f"its runner died while loading, by {await self._death()}")
        report: RunnerReady | Failed = decode(line, RunnerReport)
        if isinstance(report, Failed):
            raise ModelLoadFailed(report.message)
        self.ready, self.ready_at = report, time.monotonic()
        logs.models.info(
            "Model {} is ready after {} s: engine {} {} on {}, context {} tokens, pid {}",
            self.entry.name, report.load_seconds, self.spec.engine, report.engine_version, report.device, report.context_length, self.pid,
        )  # fmt: skip
        await self._become("ready")

    async def _death(self) -> str:
        """Wait for the process to end; how it did."""
        assert self._process is not None
        code = await self._process.wait()
        return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"

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
