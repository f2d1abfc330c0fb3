"""What the manager does on request, by a model's name: resolve, load, unload, switch, replace."""

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from msgspec.structs import replace

from src import logs
from src.catalog import Facts, Library, Listing, ModelEntry, OneModel
from src.engines import ENGINES
from src.errors import ModelLoading, ModelNotFound, ServiceError
from src.manager.fleet import Fleet, Succession
from src.manager.loaded_models import Loaded, LoadedModels
from src.manager.models_folder import ModelsFolder
from src.manager.planning import Planner
from src.manager.runner_process import RunnerProcess
from src.protocol import LoadProgress, ModelReady
from src.settings import Settings

ECHO = ModelEntry(name="echo", path="", format="echo", size_bytes=0, modified=0, facts=Facts(context_length=2**20))


class Manager:
    """Owns every runner of this server."""

    def __init__(self, settings: Settings, run_dir: Path) -> None:
        self.settings = settings
        self.planner = Planner(settings, run_dir)
        self._loaded_models = LoadedModels(run_dir / "loaded.json")
        self.before = self._loaded_models.read()  # what a manager that crashed had loaded
        self.fleet = Fleet(settings, self.planner, self.before.models)
        kind = ENGINES.get(settings.inference_engine)
        one = kind is not None and not kind.has_models
        self.folder = ModelsFolder(OneModel(ECHO) if one else _library(settings))
        self._default: str | None = self.before.default  # what was switched to
        self._first: tuple[Listing, str | None] | None = None  # the default model where none is set, of one listing
        self._detached: set[asyncio.Future[RunnerProcess]] = set()

    def default_model(self, listing: Listing) -> str | None:
        """The model of requests that name none: what was switched to, DEFAULT_MODEL, the first that can run here, the first."""
        if self._default in listing.entries:
            return self._default
        if self.settings.default_model:
            return listing.name_of(self.settings.default_model)
        if self._first is None or self._first[0] is not listing:
            able = (name for name, entry in listing.entries.items() if self.planner.why_not(entry) is None)
            self._first = listing, next(able, next(iter(listing.entries), None))
        return self._first[1]

    async def resolve(self, name: str | None, among: Sequence[str] = ()) -> ModelReady:
        """The runner for a request. Waits for its model to load, LOAD_WAIT_SECONDS at most. `among`: names and aliases of the
        models that may be found; empty: all. Raises ServiceError."""
        listing = await self.folder.recent()
        requested = self.default_model(listing) if name is None else name
        model = self.fleet.serving(listing.name_of(requested)) if requested and listing.is_visible(requested, among) else None
        if model is None or model.state != "ready":
            listing = await self.folder.current()
            requested = self._requested(name, listing, among)
            if requested is None and not among:
                what_to_do = "; ".join(listing.unreadable) or "Put a GGUF file there"
                raise ModelNotFound(f"There is no model in {self.settings.shown_models_dir}. {what_to_do}.", param="model")
            if requested is None or not listing.is_visible(requested, among):
                raise listing.invisible(name, among)
            model = await self._wait_loaded(requested, listing)
            listing = await self.folder.recent()
        model.used_at = time.monotonic()
        ready = _ready(model)
        if requested is None or not listing.is_adapter(requested):
            return ready
        if requested not in model.entry.options.adapters:  # models.toml has changed since: it would answer without
            raise ModelNotFound(
                f"The model {model.entry.name} was loaded before its adapter {requested!r} was added. Load it again.", param="model"
            )
        return replace(ready, model=requested, adapter=requested)

    async def load(self, name: str, listing: Listing | None = None) -> ModelReady:
        """Load a model, or join its load. Returns at once where it is loaded; if its files or options have changed since, it is
        loaded again. `listing`: the models there are, where the caller has just looked. Raises ServiceError."""
        return _ready(await _finish_load(*await self._begin_load(name, listing)))

    async def load_progress(self, name: str) -> AsyncIterator[LoadProgress | ModelReady]:
        """The same load, with how far it is on the way: found, reading_weights, warming_up, ready. Raises ServiceError.

        It goes on when nobody follows it any more.
        """
        entry = (await self.folder.current()).find(name)
        total = entry.facts.weight_bytes
        yield LoadProgress(model=entry.name, stage="found", bytes_read=0, bytes_total=total)
        model, succession = await self._begin_load(entry.name)
        async for progress in model.follow_load():
            yield progress
        await _finish_load(model, succession)
        yield LoadProgress(model=entry.name, stage="ready", bytes_read=total, bytes_total=total)
        yield _ready(model)

    async def unload(self, name: str) -> str:
        """End a model's runner after its running requests; returns its own name once its memory is free. Not loaded: nothing to do."""
        async with self.fleet.lock:
            listing = await self.folder.current()
            name = listing.name_of(name)
            if model := self.fleet.serving(name):
                self.fleet.retire(model, "requested by an admin", "asked")
            elif not self.fleet.is_leaving(name):
                listing.find(name)
        await self.fleet.left(self.fleet.leaving(name))
        return name

    async def switch(self, name: str, before: str | None) -> ModelReady:
        """Load a model in the place of another (`before`, else the default one) and make it the default. Raises ServiceError."""
        listing = await self.folder.current()
        entry = listing.find(name)
        old_name = listing.find(before).name if before else self.default_model(listing)
        old = self.fleet.serving(old_name) if old_name and old_name != entry.name else None
        if old and old.entry.options.pinned:
            old = None
        model = await self._load(entry.name, in_place_of=old)
        self._default = entry.name
        async with self.fleet.lock:
            if old and self.fleet.serving(old.entry.name) is old:
                self.fleet.retire(old, f"replaced by {entry.name}", "asked")
        return _ready(model)

    async def replace(self, model: RunnerProcess, why: str) -> None:
        """A fresh runner for a model, with its files and options as they are now, and no request lost. Raises ServiceError."""
        name = model.entry.name
        async with self.fleet.lock:
            if self.fleet.serving(name) is not model or name in self.fleet.successions:
                return
            succession = await self.fleet.succeed(model, (await self.folder.current()).find(name), why)
        await succession.done

    def note_loaded(self) -> None:
        """For a manager that comes after this one."""
        self._loaded_models.write(Loaded(self._default, tuple(self.fleet.wanted())))

    async def close(self) -> None:
        """Stop every runner. The gateway has drained by now: what still runs is cut."""
        for task in self._detached:
            task.cancel()
        await self.fleet.close()

    def _requested(self, name: str | None, listing: Listing, among: Sequence[str]) -> str | None:
        """The name of the model that is to answer. One that is there, but not visible, is as unknown as one that is not there."""
        if name is not None and self.settings.unknown_models_use_default and not (listing.has(name) and listing.is_visible(name, among)):
            return self.default_model(listing)
        return self.default_model(listing) if name is None else name

    async def _wait_loaded(self, requested: str, listing: Listing) -> RunnerProcess:
        name = listing.name_of(requested)
        model = self.fleet.serving(name)
        found = listing.entries.get(name)
        if model and model.state == "failed" and model.lost_files and found and self.settings.load_on_demand:
            self.fleet.forget(model)  # until its disk is back the catalog's reason is the right one, then a request loads it again
            model = None
        if model is None:
            entry = listing.find(name)
            coming = entry.name in self.fleet.successions or self.fleet.is_leaving(entry.name)
            if not self.settings.load_on_demand and not coming:
                raise ModelNotFound(f"The model {name!r} is not loaded, and LOAD_ON_DEMAND is off.", param="model")
        # A failed model is tried again only by an explicit load: not by each request, at the cost of all others.
        waiting = asyncio.ensure_future(_finish_load(model) if model else self._load(name))
        done, _ = await asyncio.wait({waiting}, timeout=self.settings.load_wait_seconds)
        if not done:
            self._detach(waiting)
            loading = self.fleet.loading(name)
            seconds = loading.seconds_left() if loading else 2
            raise ModelLoading(f"The model {name} is being loaded. Try again in about {seconds} s.", retry_after=seconds)
        return waiting.result()

    async def _load(self, name: str, in_place_of: RunnerProcess | None = None) -> RunnerProcess:
        return await _finish_load(*await self._begin_load(name, in_place_of=in_place_of))

    async def _begin_load(
        self, name: str, listing: Listing | None = None, in_place_of: RunnerProcess | None = None
    ) -> tuple[RunnerProcess, Succession | None]:
        """The runner that is or was loaded, and the succession that it is part of."""
        async with self.fleet.lock:
            entry = (listing or await self.folder.current()).find(name)
            model = self.fleet.serving(entry.name)
            succession = self.fleet.successions.get(entry.name)
            if succession is None and model and model.state == "ready" and _differs(model.entry, entry):
                succession = await self.fleet.succeed(model, entry, "its files or options have changed")
            if succession:
                return succession.model, succession
            if model is None or model.state == "failed":
                model = await self.fleet.start(entry, in_place_of)
            return model, None

    def _detach(self, task: "asyncio.Future[RunnerProcess]") -> None:
        """Let it run with nobody waiting for it; its failure is kept in the model's state."""
        self._detached.add(task)
        task.add_done_callback(self._detached.discard)
        task.add_done_callback(lambda done: done.cancelled() or done.exception())


async def _finish_load(model: RunnerProcess, succession: Succession | None = None) -> RunnerProcess:
    await (asyncio.shield(succession.done) if succession else model.wait_ready())
    return model


def _differs(loaded: ModelEntry, found: ModelEntry) -> bool:
    return (loaded.version, loaded.path, loaded.options) != (found.version, found.path, found.options)


def _ready(model: RunnerProcess) -> ModelReady:
    return ModelReady(
        model=model.entry.name,
        socket=model.spec.socket,
        engine=model.spec.engine,
        fingerprint=_fingerprint(model),
        sampling=model.entry.options.sampling(),
        pid=model.pid or 0,
        previous_exit=model.previous_exit,
        retry_after=model.retry_after,
    )


def _fingerprint(model: RunnerProcess) -> str:
    """OpenAI's system_fingerprint: the same for the same files, options, engine and version of it."""
    ready = model.ready
    kv_type = ready.kv_cache and ready.kv_cache.type if ready else None
    parts = (model.entry.version, model.entry.options, model.spec.engine, ready and ready.engine_version, kv_type)
    return "fp_" + hashlib.sha256(repr(parts).encode()).hexdigest()[:12]


def _library(settings: Settings) -> Library:
    own, *others = settings.models_paths
    return Library(own, _report_wrong_options, others)


def _report_wrong_options(message: str) -> None:
    logs.models.error("{}. The options read before stay in force until it is right", message)


async def load_first(manager: Manager) -> ModelReady | None:
    """Load the default model at the start, or what the manager before this one had loaded. A failure is kept in the model's
    state and logged where it happened. Returns the last that is ready."""
    names = manager.before.models or tuple(filter(None, [manager.default_model(await manager.folder.recent())]))
    if not names:
        logs.models.warning("There is no model to load yet: put one into the models folder and ask for it by its folder's name")
    ready = None
    for name in names:
        try:
            ready = await manager.load(name, await manager.folder.recent())
        except ServiceError as error:
            logs.models.error("The model {} is not loaded at the start: {}", name, error.message)
    return ready
