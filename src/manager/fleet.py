"""The runners there are: started where there is room, succeeded by fresh ones, drained. Knows nothing of requests' names."""

import asyncio
import contextlib
import time
from collections.abc import Coroutine, Iterable
from typing import Any, NamedTuple

from src import logs
from src.catalog import ModelEntry
from src.errors import ModelDoesNotFit, ServiceError
from src.manager import memory
from src.manager.memory import Memory
from src.manager.metrics import families as figures
from src.manager.planning import Plan, Planner
from src.manager.runner_process import RunnerProcess
from src.settings import Settings

LATE_SECONDS, LOOK_SECONDS = 5.0, 0.2  # that memory of a process which is gone may still be taken; between two looks


class Succession(NamedTuple):
    model: RunnerProcess  # the successor
    done: asyncio.Task[None]  # once it has taken over; fails as its load does


class Fleet:
    """Each name has at most one runner that serves it. Beside it there may be its successor, which is being loaded, and
    those before it, which are leaving: they get no new requests and end after those they have.

    The caller holds `lock` when it calls start, succeed or retire: two of them must not take the same room.
    """

    def __init__(self, settings: Settings, planner: Planner, proven: Iterable[str] = ()) -> None:
        """`proven`: names of models that were loaded by the manager before."""
        self.lock = asyncio.Lock()
        self.successions: dict[str, Succession] = {}
        self._settings = settings
        self._planner = planner
        self._proven = set(proven)
        self._serving: dict[str, RunnerProcess] = {}
        self._loading: set[RunnerProcess] = set()  # successors among them
        self._leaving: dict[RunnerProcess, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Future[None]] = set()

    def serving(self, name: str) -> RunnerProcess | None:
        """The runner of a model: loading, ready, or failed, which has no process any more."""
        return self._serving.get(name)

    def loading(self, name: str) -> RunnerProcess | None:
        return next((model for model in self._loading if model.entry.name == name), None)

    def is_loading(self) -> bool:
        return bool(self._loading)

    def ready(self) -> list[RunnerProcess]:
        return [model for model in self._serving.values() if model.state == "ready"]

    def wanted(self) -> list[str]:
        """Names of the models that are loaded, or on their way."""
        return sorted(name for name, model in self._serving.items() if model.state in ("loading", "ready"))

    def is_leaving(self, name: str) -> bool:
        return any(model.entry.name == name for model in self._leaving)

    def runners(self) -> dict[int, str]:
        """Model names by process id."""
        return {model.pid: model.entry.name for model in self._all() if model.pid}

    def available(self, engine: str) -> Memory:
        """What there is now for one more model, less what models that are loading will still take."""
        taken = memory.Taken(
            runners=self.runners(),
            promised=sum(max(0, model.expected_bytes - _footprint(model)) for model in self._loading),
            expected=sum(model.expected_bytes for model in self._all() if model.pid or model in self._loading),
        )
        room = self._planner.available(engine, taken)
        if room.kind != "unified":
            return room
        # What a GPU's driver has given to a model that is loading, no figure of its process tells.
        return room._replace(free=min([room.free, *(model.left_bytes for model in self._loading)]))

    def without_others(self, engine: str) -> Memory:
        """What there would be if all went that may go."""
        return _without(self.available(engine), [model for model in self._all() if not model.entry.options.pinned])

    async def start(self, entry: ModelEntry, in_place_of: RunnerProcess | None = None) -> RunnerProcess:
        """A runner for a model that has none, once there is room for it. What has to go for it goes when it is ready, where
        memory holds both, else before. Raises ModelLoadFailed, ModelDoesNotFit."""
        engines = self._planner.engines(entry)
        while True:
            room = self.available(engines[0])
            victims = await self._victims(entry, engines[0], room, [in_place_of] if in_place_of in self.ready() else [])
            plan = self._planner.plan(entry, engines[0], _without(room, [*victims, *self._leaving]))
            if plan.fit.need.total <= room.free and all(model.state == "ready" for model in victims):
                break
            gone = await self._make_room(victims, entry)
            await self._memory_is_back(engines[0], min(plan.fit.need.total, _without(room, gone).free))
        model = self._serving[entry.name] = self._supervise(entry, plan, engines)
        self._keep(self._retire_when_ready(model, victims))
        return model

    async def succeed(self, old: RunnerProcess, entry: ModelEntry, why: str) -> Succession:
        """Load a model again beside its old runner, or where memory does not hold both, after it."""
        engines = self._planner.engines(entry)
        room = self.available(engines[0])
        plan = self._planner.plan(entry, engines[0], _without(room, [old, *self._leaving]))
        logs.models.info("Reloading {}: {}", entry.name, why)
        if plan.fit.need.total > room.free:
            self.retire(old, why, "replaced")
            gone = [old, *self._leaving]
            await self.left(gone)
            await self._memory_is_back(engines[0], min(plan.fit.need.total, _without(room, gone).free))
            plan = self._planner.plan(entry, engines[0], self.available(engines[0]))
        model = self._supervise(entry, plan, engines)
        self._serving.setdefault(entry.name, model)
        succession = self.successions[entry.name] = Succession(model, asyncio.create_task(self._take_over(old, model)))
        self._keep(_quietly(succession.done))
        return succession

    def retire(self, model: RunnerProcess, why: str, reason: str) -> None:
        """No request is sent to it from now on; it ends after those it has. `reason`, for the metrics: asked, idle, room, replaced."""
        if self._serving.get(model.entry.name) is model:
            del self._serving[model.entry.name]
        if model not in self._leaving:
            logs.models.info("Unloading {}: {}", model.entry.name, why)
            figures.UNLOADS.labels(model.entry.name, reason).inc()
            self._leaving[model] = asyncio.create_task(self._leave(model))

    def forget(self, model: RunnerProcess) -> None:
        """A model that has failed, and so has no process, counts as never loaded."""
        if model.state == "failed" and self._serving.get(model.entry.name) is model:
            del self._serving[model.entry.name]

    async def left(self, models: Iterable[RunnerProcess]) -> None:
        """Returns when those of the models that are leaving are gone, and their memory is free."""
        if tasks := [task for model in models if (task := self._leaving.get(model))]:
            await asyncio.wait(tasks)

    def leaving(self, name: str) -> list[RunnerProcess]:
        return [model for model in self._leaving if model.entry.name == name]

    async def close(self) -> None:
        models = self._all()
        successions = [succession.done for succession in self.successions.values()]
        tasks: list[asyncio.Future[Any]] = [*self._tasks, *self._leaving.values(), *successions]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*(model.stop(grace=2) for model in models))

    async def _victims(self, entry: ModelEntry, engine: str, room: Memory, victims: list[RunnerProcess]) -> list[RunnerProcess]:
        """Who has to go so that one more may be loaded: idle ones first, of these the longest unused. Raises ModelDoesNotFit."""
        limit = self._settings.max_concurrent_models
        loaded = [model for model in self._serving.values() if model.state in ("loading", "ready") and model.entry.name != entry.name]
        others = [model for model in loaded if model not in victims and not model.entry.options.pinned]
        busy = {model: await _is_busy(model) for model in others}
        queue = sorted(others, key=lambda model: (busy[model], model.used_at))
        excess = max(0, len(loaded) + 1 - limit - len(victims))
        if excess > len(queue):
            names = ", ".join(model.entry.name for model in loaded)
            raise ModelDoesNotFit(f"{entry.name} cannot be loaded: MAX_CONCURRENT_MODELS={limit} models are loaded and pinned ({names}).")
        victims, queue = [*victims, *queue[:excess]], queue[excess:]
        while True:
            try:
                self._planner.plan(entry, engine, _without(room, [*victims, *self._leaving]))
            except ModelDoesNotFit:
                if not queue:
                    raise
                victims.append(queue.pop(0))
            else:
                return victims

    async def _make_room(self, victims: list[RunnerProcess], entry: ModelEntry) -> list[RunnerProcess]:
        """One step: who is leaving leaves; else who is loading becomes ready first, for others wait for it; else victims go.
        Returns those that are gone."""
        if leaving := list(self._leaving):
            await self.left(leaving)
            return leaving
        if loading := [model for model in victims if model.state == "loading"]:
            with contextlib.suppress(ServiceError):
                await loading[0].wait_ready()
            return []
        for model in victims:
            self.retire(model, f"to make room for {entry.name}", "room")
        await self.left(victims)
        return victims

    async def _memory_is_back(self, engine: str, needed: int) -> None:
        """A Mac's kernel may take back what a GPU had only some time after the process is gone."""
        give_up = time.monotonic() + LATE_SECONDS
        while (room := self.available(engine)).kind == "unified" and room.free < needed and time.monotonic() < give_up:
            await asyncio.sleep(LOOK_SECONDS)

    async def _take_over(self, old: RunnerProcess, model: RunnerProcess) -> None:
        """A successor that is ready has answered a prompt: it takes over. One that failed leaves the old one serving."""
        name = model.entry.name
        try:
            await model.wait_ready()
            if self._serving.get(name) is old:
                self._serving[name] = model
                self.retire(old, "its replacement is ready", "replaced")
            elif self._serving.get(name) is not model:  # unloaded meanwhile
                self.retire(model, "the model was unloaded while this runner loaded", "asked")
        except ServiceError as error:
            if self._serving.get(name) is not model:
                logs.models.error("The new runner for {} failed ({}); keeping the old one", name, error.message)
                await model.stop(0)
            raise
        finally:
            self.successions.pop(name, None)

    async def _retire_when_ready(self, model: RunnerProcess, victims: list[RunnerProcess]) -> None:
        with contextlib.suppress(ServiceError):  # it did not load after all: they stay
            await model.wait_ready()
            for victim in victims:
                self.retire(victim, f"replaced by {model.entry.name}", "room")

    async def _leave(self, model: RunnerProcess) -> None:
        try:
            await model.drain(self._settings.request_timeout)
        finally:
            self._leaving.pop(model, None)

    def _supervise(self, entry: ModelEntry, plan: Plan, engines: list[str]) -> RunnerProcess:
        attempts = [self._planner.attempt(entry, plan._replace(engine=engine)) for engine in engines]
        model = RunnerProcess(entry, attempts, proven=entry.name in self._proven)
        model.start()
        self._loading.add(model)
        self._keep(self._forget_loading(model))
        return model

    async def _forget_loading(self, model: RunnerProcess) -> None:
        with contextlib.suppress(ServiceError):
            await model.wait_ready()
        self._loading.discard(model)

    def _all(self) -> set[RunnerProcess]:
        return {*self._serving.values(), *self._loading, *self._leaving}

    def _keep(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _quietly(task: asyncio.Task[None]) -> None:
    """Its failure is logged and kept where it happened; whoever waits for it gets it too."""
    await asyncio.wait({task})
    if not task.cancelled():
        task.exception()


async def _is_busy(model: RunnerProcess) -> bool:
    stats = await model.stats()
    return model.state == "loading" or bool(stats and stats.engine.running + stats.engine.waiting)


def _footprint(model: RunnerProcess) -> int:
    return memory.private_bytes(model.pid) + memory.mapped_bytes(model.pid) if model.pid else 0


def _without(room: Memory, models: Iterable[RunnerProcess]) -> Memory:
    """The memory there would be without some models."""
    freed = sum(_footprint(model) if room.kind == "ram" else model.expected_bytes for model in models)
    # Processes that share pages after a fork count them once each.
    return room._replace(free=min(room.free + freed, room.total - room.reserve))
