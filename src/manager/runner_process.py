"""A model's runner over all its processes: started, waited for, restarted when it crashes, stopped. Knows no other model."""

import asyncio
import contextlib
import os
import time
from collections import deque
from collections.abc import AsyncIterator

from src import logs
from src.catalog import ModelEntry
from src.errors import EngineUnavailable, ModelLoadFailed, ServiceError
from src.manager import memory
from src.manager.child import Attempt, Child, CrashedLoading
from src.manager.metrics import families as figures
from src.manager.metrics.count import TokenMeter
from src.peer import require_same_user
from src.protocol import (
    MAX_LINE_BYTES,
    AskStats,
    LoadProgress,
    ProtocolError,
    RunnerEvent,
    RunnerLoading,
    RunnerReady,
    RunnerStats,
    decode,
    encode,
    retry_after_seconds,
)
from src.protocol.launch import RunnerSpec
from src.protocol.management import NO_NUMBERS

BACKOFF = (0, 1, 2, 4, 8)  # seconds before each restart after a crash; one crash more and the model has failed
QUIET_SECONDS = 0.5  # without a request: a gateway that was sent to this runner has reached it by then
STEADY_SECONDS = 600  # after so long the crashes in a row are counted from one again
READ_SECONDS = 0.5  # between two looks at how much of the weights is read: the kernel has the figure, and no event for it


class RunnerProcess:
    """A model that is loaded, being loaded, or has failed. state: loading, ready, failed, unloading, gone."""

    def __init__(self, entry: ModelEntry, attempts: list[Attempt], *, proven: bool = False) -> None:
        """`attempts`: the first that loads is kept. `proven`: it was loaded before, by the manager before this one."""
        self.entry = entry
        self.state = "loading"
        self.reason: str | None = None  # why it has failed
        self.lost_files = False  # whether it has failed while its files could not be reached
        self.note: str | None = None  # which engines did not load it, where another does
        self.ready: RunnerReady | None = None  # what the last process that loaded reported
        self.child: Child | None = None  # the process, also once it has ended
        self.restarts = 0
        self.previous_exit: str | None = None  # of the process before
        self.retry_after = 1  # seconds that the last load took: about what a client has to wait after a crash
        self.used_at = time.monotonic()
        self._attempts = deque(attempts)
        self._proven = proven
        self._crashes = 0  # in a row
        self._tokens = TokenMeter(entry.name)
        self._changed = asyncio.Condition()
        self._life: asyncio.Task[None] | None = None

    @property
    def spec(self) -> RunnerSpec:
        return self._attempts[0].spec

    @property
    def expected_bytes(self) -> int:
        return self._attempts[0].bytes

    @property
    def left_bytes(self) -> int:
        """What there would be once it has taken what it is expected to."""
        return self._attempts[0].free - self._attempts[0].bytes

    @property
    def pid(self) -> int | None:
        return self.child.pid if self.child else None

    @property
    def ready_at(self) -> float:
        """In time.monotonic() seconds; 0.0 where its process is not ready."""
        return self.child.ready_at if self.child else 0.0

    def start(self) -> None:
        """Begin to load the model."""
        self._life = asyncio.create_task(self._live())

    def progress(self) -> LoadProgress | None:
        """How far the load is; None where none is under way."""
        if self.state != "loading":
            return None
        total = self.entry.facts.weight_bytes
        stage = self.child.stage if self.child else "reading_weights"
        read = total if stage != "reading_weights" else min(total, memory.read_bytes(self.child.pid)) if self.child else 0
        return LoadProgress(model=self.entry.name, stage=stage, bytes_read=read, bytes_total=total)

    async def follow_load(self) -> AsyncIterator[LoadProgress]:
        """How far the load is: now, as soon as the stage changes, and while weights are read as they are read. Ends with the load."""
        last = None
        while progress := self.progress():
            if progress != last:
                yield (last := progress)
            seconds = READ_SECONDS if progress.stage == "reading_weights" else None
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._leaves(progress.stage), seconds)

    def seconds_left(self) -> int:
        """About how many seconds the load will still take: by the load before, else by what is read."""
        elapsed = time.monotonic() - self.child.started_at if self.child else 0.0
        if self.ready:
            left = self.ready.load_seconds - elapsed
        else:
            total = self.entry.facts.weight_bytes
            read = memory.read_bytes(self.pid) / total if self.pid and total else 0.0
            left = elapsed * (1 - read) / read if 0.01 < read < 1 else elapsed
        return retry_after_seconds(left)

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
            if stats and stats.engine.running + stats.engine.waiting:
                quiet_at = time.monotonic() + QUIET_SECONDS
        await self.stop(max(1.0, give_up - time.monotonic()))

    async def stop(self, grace: float) -> None:
        """Let running requests end, for `grace` seconds at most; then the process is gone and its memory returned."""
        await self._become("unloading")
        if self.child and not await self.child.terminate(grace):
            logs.models.warning("Runner for {} (pid {}) did not end within {} s; killing it", self.entry.name, self.pid, grace)
            await self.child.kill()
        if self._life:
            self._life.cancel()
            await asyncio.gather(self._life, return_exceptions=True)
        if self.child:  # another one by now, where it was between two of them
            await self.child.kill()
        await self._become("gone")

    async def replace_process(self, why: str) -> None:
        """End a process that will not end by itself; another is started as after any crash."""
        if self.child:
            await self.child.kill(why)

    async def stats(self) -> RunnerStats | None:
        """The runner's figures; None where it does not answer at once."""
        if self.state not in ("ready", "unloading"):
            return None
        try:
            stats = await asyncio.wait_for(_ask(self.spec.socket), 2)
        except (OSError, asyncio.TimeoutError, ProtocolError):
            return None
        self._tokens.note(stats)
        return stats

    async def _live(self) -> None:
        """Supervise the runner. A mistake of the manager's own ends as a failed model: one that stays "loading" has its clients wait."""
        try:
            await self._supervise()
        except Exception as error:
            logs.models.exception("The manager made a mistake with {}", self.entry.name)
            if self.child:
                await self.child.kill()
            await self._become("failed", f"the manager made a mistake ({type(error).__name__}); its log says which")

    async def _supervise(self) -> None:
        """Start the runner, and again each time it crashes, until it has crashed too often."""
        while True:
            try:
                child = await self._load()
            except (CrashedLoading, ServiceError, ProtocolError, OSError) as error:
                if self.child:
                    await self.child.kill()
                if not await self._retry(error):
                    return
                continue
            before, how = self.previous_exit, await child.exit()
            self.previous_exit = how
            if self.state == "unloading":
                return
            # In a row are those that served nobody: a model must not be given up for some requests that kill it.
            steady = await child.has_served() or time.monotonic() - child.started_at > STEADY_SECONDS
            if how == before == NO_NUMBERS and not steady:
                await self._give_up(f"its model computes {how}, also in a new process")
                return
            if not await self._restart(how, steady=steady):
                return

    async def _load(self) -> Child:
        """Start a process, and return once its model is ready. Raises CrashedLoading, ServiceError, ProtocolError, OSError."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.spec.socket)
        logs.models.info("Loading {} with {}", self.entry.name, self.spec.engine)
        child = self.child = await Child.start(self._attempts[0])
        self._tokens.restart()
        while isinstance(report := await child.report(), RunnerLoading):
            async with self._changed:
                self._changed.notify_all()
        self.ready, self._proven = report, True
        self.retry_after = retry_after_seconds(child.ready_at - child.started_at)
        logs.models.info(
            "Model {} is ready after {} s: engine {} {} on {}, context {} tokens, pid {}",
            self.entry.name, report.load_seconds, self.spec.engine, report.engine_version, report.device, report.context_length, self.pid,
        )  # fmt: skip
        figures.LOADS.labels(self.entry.name, self.spec.engine, "ready").inc()
        figures.LOAD_SECONDS.labels(self.entry.name, self.spec.engine).observe(report.load_seconds)
        figures.RESTARTS.labels(self.entry.name)  # 0 is a figure too
        if self.state == "loading":  # else it is being stopped
            await self._become("ready")
        return child

    async def _retry(self, error: Exception) -> bool:
        """Whether to try again after a load that failed; else the model has failed, or is being unloaded."""
        if self.state == "unloading":
            return False
        # A model that has loaded before can be loaded: this is one crash more, and no reason to give it up.
        if isinstance(error, CrashedLoading) and self._proven:
            return await self._restart(error.how, steady=False)
        figures.LOADS.labels(self.entry.name, self.spec.engine, "failed").inc()
        if self._fall_back(str(error)):
            return True
        await self._fail(f"{self.note}; {self.spec.engine}: {error}" if self.note else str(error))
        logs.models.error("Model {} failed to load: {}", self.entry.name, error)
        return False

    async def _restart(self, how: str, *, steady: bool) -> bool:
        """Whether to start another process, after a pause; else the model has failed. `steady`: it was not a crash in a row."""
        self._crashes = 1 if steady else self._crashes + 1
        if self._crashes > len(BACKOFF):
            await self._give_up(f"its runner crashed {self._crashes} times in a row (the last time: {how})")
            return False
        logs.models.error("Runner for {} crashed ({}); restarting", self.entry.name, how.removeprefix("signal "))
        self.restarts += 1
        figures.RESTARTS.labels(self.entry.name).inc()
        await self._become("loading")
        await asyncio.sleep(BACKOFF[self._crashes - 1])
        return True

    async def _give_up(self, reason: str) -> None:
        await self._fail(reason)
        logs.models.error("Giving up {}: {}", self.entry.name, reason)

    async def _fail(self, reason: str) -> None:
        self.lost_files = bool(self.entry.path) and not await asyncio.to_thread(os.path.exists, self.entry.path)
        await self._become("failed", reason)

    def _fall_back(self, reason: str) -> bool:
        """Turn to the next engine, where there is one."""
        if len(self._attempts) == 1 or self.ready:  # one that did load before is the right one
            return False
        failed = self._attempts.popleft().spec.engine
        self.note = f"{self.note}; {failed}: {reason}" if self.note else f"{failed}: {reason}"
        logs.models.error("{} could not load {} ({}); falling back to {}", failed, self.entry.name, reason, self.spec.engine)
        return True

    async def _become(self, state: str, reason: str | None = None) -> None:
        async with self._changed:
            self.state, self.reason = state, reason
            self._changed.notify_all()

    async def _leaves(self, stage: str) -> None:
        """Returns once the load is beyond this stage, or over."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.state != "loading" or (self.child is not None and self.child.stage != stage))


async def _ask(socket: str) -> RunnerStats:
    reader, writer = await asyncio.open_unix_connection(socket, limit=MAX_LINE_BYTES)
    try:
        require_same_user(writer.get_extra_info("socket"))
        writer.write(encode(AskStats()))
        stats = decode(await reader.readline(), RunnerEvent)
        if not isinstance(stats, RunnerStats):
            raise ProtocolError("a runner answered AskStats with something else")
        return stats
    finally:
        writer.close()
