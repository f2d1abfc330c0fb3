"""What the manager tells of models, memory and processes. Changes nothing."""

import time

import psutil
from msgspec.structs import replace

from src import engines, logs
from src.catalog import ModelEntry
from src.errors import ModelDoesNotFit, ServiceError
from src.manager.manager import Manager
from src.manager.processes import ProcessTable
from src.protocol import ModelPlace, ModelPlan, ModelState, RunnerReady, ServiceStatus


class Reporter:
    def __init__(self, manager: Manager) -> None:
        self._manager = manager
        self._processes = ProcessTable()
        self._began = time.monotonic()

    async def status(self, detail: bool) -> ServiceStatus:
        manager = self._manager
        listing = await manager.folder.current()
        states = [await self._state(entry, detail) for entry in listing.entries.values()]
        status = ServiceStatus(
            models=states,
            default_model=manager.default_model(listing),
            uptime_seconds=round(time.monotonic() - self._began, 1),
            load_on_demand=manager.settings.load_on_demand,
            unreadable=list(listing.unreadable),
        )
        if not detail:
            return status
        memory = psutil.virtual_memory()
        return replace(
            status,
            engines=engines.detect(),
            processes=self._processes.sample(manager.fleet.runners()),
            cpu_percent=psutil.cpu_percent(),
            memory_used_bytes=memory.total - memory.available,
            memory_total_bytes=memory.total,
        )

    async def plan(self, name: str) -> ModelPlan:
        """What loading a model here would take, and why it would not work if it would not. Raises ModelNotFound."""
        manager = self._manager
        entry = (await manager.folder.current()).find(name)
        plan = ModelPlan(model=entry.name, fits=False, engines=engines.reasons(entry.format))
        try:
            engine, *others = manager.planner.engines(entry)
        except ServiceError as error:
            return replace(plan, reason=error.message)
        memory = manager.fleet.without_others(engine)
        loaded = manager.fleet.serving(entry.name)
        plan = replace(
            plan,
            engine=engine,
            fallback_engines=others,
            loaded=bool(loaded and loaded.state == "ready"),
            device_memory=memory.kind,
            memory_total=memory.total,
            memory_free=max(0, memory.free),
            memory_reserve=memory.reserve,
        )
        try:
            fit = manager.planner.plan(entry, engine, memory).fit
        except ModelDoesNotFit as error:
            return replace(plan, reason=error.message)
        return replace(
            plan,
            fits=True,
            context_length=fit.context_length,
            max_parallel_sequences=fit.sequences,
            memory_bytes={**fit.need._asdict(), "total": fit.need.total},
            beside_others=fit.need.total <= manager.fleet.available(engine).free,
        )

    async def log_metrics(self) -> None:
        """One line a process and a model to system_metrics.log."""
        for use in self._processes.sample(self._manager.fleet.runners()):
            logs.write(
                logs.metrics,
                process=use.name,
                pid=use.pid,
                model=use.model,
                cpu_percent=use.cpu_percent,
                rss_mb=use.rss_bytes // 2**20,
                threads=use.threads,
            )
        for model in self._manager.fleet.ready():
            if stats := await model.stats():
                logs.write(
                    logs.metrics,
                    model=model.entry.name,
                    running=stats.engine.running,
                    waiting=stats.engine.waiting,
                    tokens_per_second=stats.tokens_per_second,
                    kv_used=stats.engine.kv_used,
                    kv_total=stats.engine.kv_total,
                )

    async def _state(self, entry: ModelEntry, detail: bool) -> ModelState:
        manager = self._manager
        model = manager.fleet.serving(entry.name)
        why_not = manager.planner.why_not(entry)
        state = model.state if model else "unloading" if manager.fleet.is_leaving(entry.name) else "failed" if why_not else "available"
        loading = manager.fleet.loading(entry.name)
        ready = model.ready if model and model.state == "ready" else None
        return ModelState(
            name=entry.name,
            state=state,
            reason=model.reason if model else why_not,
            note=model.note if model else None,
            format=entry.format,
            size_bytes=entry.size_bytes,
            modified=entry.modified,
            places=[ModelPlace(source=place.source, folder=place.folder) for place in entry.places],
            aliases=[*entry.options.aliases, *entry.also],
            adapters=list(entry.options.adapters),
            architecture=entry.facts.architecture,
            parameters=entry.facts.parameters,
            quantisation=entry.facts.quantisation,
            trained_context_length=entry.facts.context_length,
            capabilities=_capabilities(entry, ready, model.spec.engine if model else None),
            engines=engines.reasons(entry.format),
            pinned=entry.options.pinned,
            progress=loading.progress() if loading else None,
            engine=model.spec.engine if model else None,
            context_length=ready.context_length if ready else None,
            device=ready.device if ready else None,
            engine_version=ready.engine_version if ready else None,
            load_seconds=ready.load_seconds if ready else None,
            kv_cache=ready.kv_cache if ready else None,
            restarts=model.restarts if model else 0,
            stats=await model.stats() if model and detail else None,
        )


def _capabilities(entry: ModelEntry, ready: RunnerReady | None, engine: str | None) -> list[str]:
    """What its files say, and whether it can embed without having been trained for that: of a loaded model its runner knows."""
    found = list(entry.facts.capabilities)
    able = [engine] if engine else [name for name, reason in engines.reasons(entry.format).items() if reason is None]
    embeds = ready.embedding_length > 0 if ready else any("mean_embeddings" in engines.ENGINES[name].features for name in able)
    return found if "embeddings" in found or not embeds else [*found, "mean_embeddings"]
