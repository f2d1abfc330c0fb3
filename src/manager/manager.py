"""What can be asked of the manager: resolve, load, unload, switch, replace, by a model's name. Knows nothing of sockets."""

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator
from pathlib import Path

from msgspec.structs import replace

from src import logs
from src.catalog import Facts, Library, ModelEntry, OneModel
from src.errors import ModelLoading, ModelNotFound, ServiceError
from src.manager import memory
from src.manager.fleet import Fleet
from src.manager.planning import Planner
from src.manager.roster import Loaded, Roster
from src.manager.supervise import Supervised
from src.protocol import LoadProgress, ModelReady
from src.settings import Settings

ECHO = ModelEntry(name="echo", path="", format="echo", size_bytes=0, modified=0, facts=Facts(context_length=2**20))
PROGRESS_SECONDS = 0.1  # between two looks at how far a load is


class Manager:
    """Owns every runner of this server."""

    def __init__(self, settings: Settings, run_dir: Path) -> None:
        self.settings = settings
        self.planner = Planner(settings, run_dir)
        self._roster = Roster(run_dir / "loaded.json")
        self.before = self._roster.read()  # the manager that died, where this one takes its place
        self.fleet = Fleet(settings, self.planner, self.before.models)
        complain = lambda message: logs.models.error("{}. What it said before counts till it is right", message)  # noqa: E731
        self.library = OneModel(ECHO) if settings.inference_engine == "echo" else Library(settings.models_path, complain)
        self._default: str | None = self.before.default  # what was switched to
        self._unawaited: set[asyncio.Future[Supervised]] = set()

    def default_model(self) -> str | None:
        """The model of requests that name none: what was switched to, DEFAULT_MODEL, the first that can run here, the first."""
        entries = self.library.entries()
        if self._default in entries:
            return self._default
        able = (name for name, entry in entries.items() if self.planner.why_not(entry) is None)
        return self.library.name_of(self.settings.default_model) or next(able, next(iter(entries), None))

    async def resolve(self, name: str | None) -> ModelReady:
        """The runner for a request. Waits for its model to load, LOAD_WAIT_SECONDS at most. Raises ServiceError."""
        if name is None and (name := self.default_model()) is None:
            raise ModelNotFound(f"There is no model in {self.settings.models_dir}/. Put a GGUF file there.", param="model")
        asked, name = name, self.library.name_of(name)
        model = self.fleet.serving(name)
        if model is None or model.state != "ready":
            model = await self._wait_loaded(name, model)
        model.used_at = time.monotonic()
        ready = _ready(model)
        if not self.library.is_adapter(asked):
            return ready
        if asked not in model.spec.options.adapters:  # models.toml has changed since: it would answer without
            raise ModelNotFound(f"The model {model.entry.name} was loaded without the adapter {asked!r}: load it anew.", param="model")
        return replace(ready, model=asked, adapter=asked)

    async def load(self, name: str) -> ModelReady:
        """Load a model, or join its loading; at once if it is loaded and its files and options are those that were loaded,
        else what there is now takes its place. Raises ServiceError."""
        return _ready(await self._load(name))

    async def load_progress(self, name: str) -> AsyncIterator[LoadProgress]:
        """The same, telling on the way how far it is: found, reading_weights, warming_up, ready. Raises ServiceError."""
        entry = self.library.find(name)
        total = entry.facts.weight_bytes
        yield LoadProgress(model=entry.name, stage="found", bytes_read=0, bytes_total=total)
        loading = asyncio.ensure_future(self._load(name))
        self._let_go_on(loading)  # also when whoever asked is gone
        last = None
        while not loading.done():
            current = self.progress(entry.name)
            if current and current != last:
                yield (last := current)
            await asyncio.wait({loading}, timeout=PROGRESS_SECONDS)
        loading.result()
        yield LoadProgress(model=entry.name, stage="ready", bytes_read=total, bytes_total=total)

    def progress(self, name: str) -> LoadProgress | None:
        """How far the load of a model is; None where it is not being loaded."""
        model = self.fleet.loading(name)
        if model is None or model.state != "loading":
            return None
        total = model.entry.facts.weight_bytes
        read = min(total, memory.mapped_bytes(model.pid)) if model.pid and model.stage == "reading_weights" else total
        return LoadProgress(model=name, stage=model.stage, bytes_read=read, bytes_total=total)

    async def unload(self, name: str) -> None:
        """End a model's runner after its running requests; returns once its memory is free. Not loaded: nothing to do."""
        async with self.fleet.lock:
            name = self.library.name_of(name)
            if model := self.fleet.serving(name):
                self.fleet.retire(model, "it was asked for", "asked")
            elif not self.fleet.is_leaving(name):
                self.library.find(name)
        await self.fleet.left(self.fleet.leaving(name))

    async def switch(self, name: str, before: str | None) -> ModelReady:
        """Load a model in the place of another (`before`, else the default one) and make it the default. Raises ServiceError."""
        entry = self.library.find(name)
        old_name = self.library.find(before).name if before else self.default_model()
        old = self.fleet.serving(old_name) if old_name and old_name != entry.name else None
        if old and old.entry.options.pinned:
            old = None
        model = await self._load(entry.name, in_place_of=old)
        self._default = entry.name
        async with self.fleet.lock:
            if old and self.fleet.serving(old.entry.name) is old:
                self.fleet.retire(old, f"{entry.name} takes its place", "asked")
        return _ready(model)

    async def replace(self, model: Supervised, why: str) -> None:
        """A fresh runner for a model, with its files and options as they are now, and no request lost. Raises ServiceError."""
        name = model.entry.name
        async with self.fleet.lock:
            if self.fleet.serving(name) is not model or name in self.fleet.successors:
                return
            task = await self.fleet.succeed(model, self.library.find(name), why)
        await task

    def note_loaded(self) -> None:
        """For a manager that comes after this one."""
        self._roster.write(Loaded(self._default, tuple(self.fleet.wanted())))

    async def close(self) -> None:
        """Stop every runner. The gateway has drained by now: what still runs is cut."""
        for task in self._unawaited:
            task.cancel()
        await self.fleet.close()

    async def _wait_loaded(self, name: str, model: Supervised | None) -> Supervised:
        if model is None:
            entry = self.library.find(name)
            coming = entry.name in self.fleet.successors or self.fleet.is_leaving(entry.name)
            if not self.settings.load_on_demand and not coming:
                raise ModelNotFound(f"The model {name!r} is not loaded, and LOAD_ON_DEMAND is off.", param="model")
        # A failed model is tried again only by an explicit load: not by each request, at the cost of all others.
        waiting = asyncio.ensure_future(_join(model) if model else self._load(name))
        done, _ = await asyncio.wait({waiting}, timeout=self.settings.load_wait_seconds)
        if not done:
            self._let_go_on(waiting)
            loading = self.fleet.loading(name)
            seconds = loading.loaded_in() if loading else 2
            raise ModelLoading(f"The model {name} is being loaded. Try again in about {seconds} s.", retry_after=seconds)
        return waiting.result()

    async def _load(self, name: str, in_place_of: Supervised | None = None) -> Supervised:
        async with self.fleet.lock:
            entry = self.library.find(name)
            model = self.fleet.serving(entry.name)
            successor = self.fleet.successors.get(entry.name)
            if successor is None and model and model.state == "ready" and _differs(model.entry, entry):
                successor = await self.fleet.succeed(model, entry, "its files or options have changed")
            elif model is None or model.state == "failed":
                model = await self.fleet.start(entry, in_place_of)
        if successor:
            return await asyncio.shield(successor)
        assert model
        return await _join(model)

    def _let_go_on(self, task: "asyncio.Future[Supervised]") -> None:
        """Nobody may be left to wait for it; its failure is kept in the model's state."""
        self._unawaited.add(task)
        task.add_done_callback(self._unawaited.discard)
        task.add_done_callback(lambda done: done.cancelled() or done.exception())


async def _join(model: Supervised) -> Supervised:
    await model.wait_ready()
    return model


def _differs(loaded: ModelEntry, found: ModelEntry) -> bool:
    return (loaded.version, loaded.path, loaded.options) != (found.version, found.path, found.options)


def _ready(model: Supervised) -> ModelReady:
    return ModelReady(
        model=model.entry.name,
        socket=model.spec.socket,
        engine=model.spec.engine,
        fingerprint=_fingerprint(model),
        sampling=model.entry.options.sampling(),
        pid=model.pid or 0,
        predecessor=model.last_death,
        back_in=model.back_in,
    )


def _fingerprint(model: Supervised) -> str:
    """OpenAI's system_fingerprint: the same for the same files, options, engine and version of it."""
    parts = (model.entry.version, model.entry.options, model.spec.engine, model.ready and model.ready.engine_version)
    return "fp_" + hashlib.sha256(repr(parts).encode()).hexdigest()[:12]


async def load_first(manager: Manager) -> ModelReady | None:
    """Load the default model at the start, or what the manager before this one had loaded. A failure is kept in the model's
    state and logged where it happened. Returns the last that is ready."""
    names = manager.before.models or tuple(filter(None, [manager.default_model()]))
    if not names:
        logs.models.warning("There is no model to load yet: put one into the models folder and ask for it by its folder's name")
    ready = None
    for name in names:
        try:
            ready = await manager.load(name)
        except ServiceError as error:
            logs.models.error("The model {} is not loaded at the start: {}", name, error.message)
    return ready
