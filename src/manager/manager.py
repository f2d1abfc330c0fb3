"""Which models are loaded: loads, joins loads, evicts, reports. Knows nothing of sockets; server.py asks it."""

import asyncio
import contextlib
import os
import time
from pathlib import Path

import psutil

from src import engines, logs
from src.catalog import Catalog, ModelEntry
from src.engines.base import EngineOptions
from src.errors import ModelLoadFailed, ModelLoading, ModelNotFound, ServiceError
from src.manager import openmp
from src.manager.processes import ProcessTable
from src.manager.supervise import Supervised
from src.protocol import ModelReady, ModelState, ServiceStatus
from src.settings import Settings
from src.spec import RunnerSpec

STAY_SECONDS = 0.5  # a model just loaded is kept for at least so long: the requests that waited for it have to reach it
ECHO = ModelEntry(name="echo", path="", format="echo", size_bytes=0, modified=0)
# Large blocks on huge pages: the KV cache is zeroed when it is made, which took 3.5 s for 3.8 GB page by page and 0.8 s so.
HUGE_PAGES = "glibc.malloc.hugetlb=1"


class Manager:
    """Owns every runner of this server."""

    def __init__(self, settings: Settings, run_dir: Path) -> None:
        self._settings = settings
        self._run_dir = run_dir
        self._catalog = Catalog(settings.models_path)
        self._models: dict[str, Supervised] = {}
        self._room = asyncio.Lock()  # held while room for a model is made, so that two loads do not take the same room
        self._began = time.monotonic()
        self._numbers = 0
        self.processes = ProcessTable()

    def entries(self) -> dict[str, ModelEntry]:
        """The catalog as the folder holds it now."""
        return {ECHO.name: ECHO} if self._settings.inference_engine == "echo" else self._catalog.scan()

    def default_model(self) -> str | None:
        """The model of requests that name none: DEFAULT_MODEL, else the first that an engine here can run, else the first."""
        entries = self.entries()
        able = (name for name, entry in entries.items() if self._why_not(entry) is None)
        return self._settings.default_model or next(able, next(iter(entries), None))

    async def load(self, name: str) -> ModelReady:
        """Load a model, or join its loading; at once if it is loaded. Raises ServiceError."""
        async with self._room:
            entry = self._entry(name)
            model = self._models.get(name)
            if model is None or model.state in ("failed", "gone"):
                engine = self._engine(entry)  # first: no room is made for a model that nothing here can run
                await self._make_room()
                model = self._models[name] = Supervised(entry, self._spec(entry, engine), self._environ())
        await model.wait_ready()
        return _ready(model)

    async def resolve(self, name: str | None) -> ModelReady:
        """The runner for a request. Waits for its model to load, LOAD_WAIT_SECONDS at most. Raises ServiceError."""
        if name is None and (name := self.default_model()) is None:
            raise ModelNotFound(f"There is no model in {self._settings.models_dir}/. Put a GGUF file there.", param="model")
        model = self._models.get(name)
        if model is None or model.state == "gone":
            self._entry(name)
            if not self._settings.load_on_demand:
                raise ModelNotFound(f"The model {name!r} is not loaded, and LOAD_ON_DEMAND is off.", param="model")
        if model is None or model.state != "ready":
            model = await self._wait_loaded(name, model)
        model.used_at = time.monotonic()
        return _ready(model)

    async def _wait_loaded(self, name: str, model: Supervised | None) -> Supervised:
        # A failed model is tried again only by an explicit load: not by each request, at the cost of all others.
        loading = model.wait_ready() if model and model.state in ("loading", "failed") else self.load(name)
        waiting = asyncio.ensure_future(loading)
        done, _ = await asyncio.wait({waiting}, timeout=self._settings.load_wait_seconds)
        if not done:
            waiting.add_done_callback(lambda task: task.cancelled() or task.exception())  # its failure is kept in the state
            raise ModelLoading(f"The model {name} is being loaded. Try again shortly.", retry_after=2)
        waiting.result()
        return self._models[name]

    async def status(self, detail: bool) -> ServiceStatus:
        states = [await self._state(entry, detail) for entry in self.entries().values()]
        status = ServiceStatus(
            models=states,
            default_model=self.default_model(),
            uptime_seconds=round(time.monotonic() - self._began, 1),
            load_on_demand=self._settings.load_on_demand,
        )
        if not detail:
            return status
        memory = psutil.virtual_memory()
        return ServiceStatus(
            models=states,
            default_model=status.default_model,
            uptime_seconds=status.uptime_seconds,
            load_on_demand=status.load_on_demand,
            engines=engines.detect(),
            processes=self.processes.sample(self._runners()),
            cpu_percent=psutil.cpu_percent(),
            memory_used_bytes=memory.total - memory.available,
            memory_total_bytes=memory.total,
        )

    async def log_metrics(self) -> None:
        """One line a process and a model to system_metrics.log."""
        for use in self.processes.sample(self._runners()):
            logs.metrics.info(
                "process={} pid={} model={} cpu_percent={} rss_mb={} threads={}",
                use.name, use.pid, use.model or "-", use.cpu_percent, use.rss_bytes // 2**20, use.threads,
            )  # fmt: skip
        for name, model in list(self._models.items()):
            if stats := await model.stats():
                logs.metrics.info(
                    "model={} running={} waiting={} tokens_per_second={} kv_used={} kv_total={}",
                    name, stats.running, stats.waiting, stats.tokens_per_second, stats.kv_used, stats.kv_total,
                )  # fmt: skip

    async def close(self) -> None:
        """Stop every runner. The gateway has drained by now: what still runs is cut."""
        await asyncio.gather(*(model.stop(grace=2) for model in self._models.values()))

    def _entry(self, name: str) -> ModelEntry:
        entries = self.entries()
        if name not in entries:
            known = ", ".join(entries) or "none"
            raise ModelNotFound(f"The model {name[:100]!r} does not exist. Models here: {known}.", param="model")
        return entries[name]

    async def _make_room(self) -> None:
        """Unload the least recently used models until one more may be loaded; their running requests end first, and
        those that wait for one to load are let through."""
        while True:
            loaded = [model for model in self._models.values() if model.state in ("loading", "ready")]
            if len(loaded) < self._settings.max_concurrent_models:
                return
            oldest = min(loaded, key=lambda model: model.used_at)
            with contextlib.suppress(ServiceError):  # it did not load after all: that makes room too
                await oldest.wait_ready()
                await asyncio.sleep(oldest.ready_at + STAY_SECONDS - time.monotonic())
                logs.models.info("Unloading {} to make room", oldest.entry.name)
                await oldest.stop(self._settings.request_timeout)

    def _engine(self, entry: ModelEntry) -> str:
        """Raises ModelLoadFailed when no engine here can run it."""
        return engines.choose(self._settings.inference_engine, entry.format)

    def _why_not(self, entry: ModelEntry) -> str | None:
        try:
            self._engine(entry)
        except ModelLoadFailed as error:
            return error.message
        return None

    def _spec(self, entry: ModelEntry, engine: str) -> RunnerSpec:
        settings = self._settings
        self._numbers += 1
        return RunnerSpec(
            model=entry.name,
            engine=engine,
            socket=str(self._run_dir / f"runner-{self._numbers}.sock"),  # a number: names may be long, socket paths may not
            max_requests=settings.max_concurrent_requests,
            options=EngineOptions(
                model_path=str(entry.path),
                device=settings.device_type,
                context_length=settings.context_length,
                max_sequences=settings.max_parallel_sequences,
                cached_prefixes=settings.cached_prefixes,
                threads=self._threads(),
                memory_bytes=psutil.virtual_memory().available,
                memory_fraction=settings.mlx_memory_fraction,
                kv_type=settings.kv_cache_type,
                step_time_target=settings.step_time_target_ms / 1000,
                step_delay=settings.echo_step_ms / 1000,
            ),
        )

    def _environ(self) -> dict[str, str]:
        tunables = [HUGE_PAGES, *filter(None, [os.environ.get("GLIBC_TUNABLES")])]  # the operator's own come last and win
        return {
            **os.environ,
            **openmp.environ(self._threads()),
            **self._settings.as_environ(),
            "GLIBC_TUNABLES": ":".join(tunables),
        }

    def _threads(self) -> int:
        return self._settings.threads or openmp.cores()

    def _runners(self) -> dict[int, str]:
        return {model.pid: name for name, model in self._models.items() if model.pid}

    async def _state(self, entry: ModelEntry, detail: bool) -> ModelState:
        model = self._models.get(entry.name)
        if model is None or model.state == "gone":
            reason = self._why_not(entry)
            state = "failed" if reason else "available"
            return ModelState(
                name=entry.name, state=state, reason=reason, format=entry.format, size_bytes=entry.size_bytes, modified=entry.modified
            )
        ready = model.ready
        return ModelState(
            name=entry.name,
            state=model.state,
            format=entry.format,
            size_bytes=entry.size_bytes,
            modified=entry.modified,
            reason=model.reason,
            engine=model.spec.engine,
            context_length=ready.context_length if ready else None,
            device=ready.device if ready else None,
            engine_version=ready.engine_version if ready else None,
            load_seconds=ready.load_seconds if ready else None,
            restarts=model.restarts,
            stats=await model.stats() if detail else None,
        )


def _ready(model: Supervised) -> ModelReady:
    return ModelReady(model=model.entry.name, socket=model.spec.socket, engine=model.spec.engine)


async def load_default(manager: Manager) -> ModelReady | None:
    """Load the default model at the start; a failure is kept in the model's state and logged where it happened."""
    name = manager.default_model()
    if name is None:
        logs.models.warning("There is no model to load yet: put one into the models folder and ask for it by its folder's name")
        return None
    try:
        return await manager.load(name)
    except ServiceError as error:
        logs.models.error("The default model is not loaded: {}", error.message)
        return None
