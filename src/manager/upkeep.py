"""Unloads idle models, and replaces runners that are old, have grown or hang. Nobody has to ask for it."""

import asyncio
import time

from src import logs
from src.errors import ServiceError
from src.manager import memory
from src.manager.manager import Manager
from src.manager.runner_process import RunnerProcess
from src.manager.stalls import Stalls
from src.protocol import RunnerStats

WATCH_SECONDS = 1.0
RETRY_SECONDS = 60  # after a replacement that failed


class Upkeep:
    def __init__(self, manager: Manager) -> None:
        self._manager = manager
        self._stalls = Stalls(manager.settings.engine_stall_seconds)
        self._tried_at: dict[int, float] = {}  # the last replacement, by process id, in time.monotonic() seconds
        self._replacing: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            self._manager.note_loaded()
            await self._look()

    async def _look(self) -> None:
        models = self._manager.fleet.ready()
        stats_of = dict(zip(models, await asyncio.gather(*(model.stats() for model in models)), strict=True))
        stalled = self._stalls.look({model.pid: stats for model, stats in stats_of.items() if model.pid and model.state == "ready"})
        self._tried_at = {pid: at for pid, at in self._tried_at.items() if pid in {model.pid for model in models}}
        for model, stats in stats_of.items():
            if model.state != "ready":
                continue
            if model.pid in stalled:
                await model.replace_process(stalled[model.pid])
                continue
            await self._unload_if_idle(model, stats)
            if reason := self._why_replace(model):
                task = asyncio.create_task(self._replace(model, reason))
                self._replacing.add(task)
                task.add_done_callback(self._replacing.discard)

    async def _unload_if_idle(self, model: RunnerProcess, stats: RunnerStats | None) -> None:
        options, fleet = model.entry.options, self._manager.fleet
        limit = self._manager.settings.model_idle_seconds if options.ttl is None else options.ttl
        if stats is None or stats.engine.running + stats.engine.waiting:
            model.used_at = time.monotonic()
        elif limit and not options.pinned and time.monotonic() - max(model.used_at, model.ready_at) > limit:
            async with fleet.lock:
                if fleet.serving(model.entry.name) is model and time.monotonic() - model.used_at > limit:
                    fleet.retire(model, f"idle for {limit:g} s", "idle")

    def _why_replace(self, model: RunnerProcess) -> str | None:
        settings, fleet, name = self._manager.settings, self._manager.fleet, model.entry.name
        if name in fleet.successions or fleet.serving(name) is not model or not model.child:
            return None
        tried_at = self._tried_at.get(model.child.pid, 0.0)
        age = time.monotonic() - max(model.ready_at, tried_at)
        if settings.runner_max_age and age > settings.runner_max_age:
            return f"its process has reached RUNNER_MAX_AGE={settings.runner_max_age:g} s"
        growth = (memory.private_bytes(model.child.pid) - model.child.first_private_bytes) // 2**20
        tried_lately = tried_at and time.monotonic() - tried_at < RETRY_SECONDS
        if settings.runner_max_rss_growth and growth > settings.runner_max_rss_growth and not tried_lately:
            return f"its process has grown by {growth} MiB, more than RUNNER_MAX_RSS_GROWTH={settings.runner_max_rss_growth}"
        return None

    async def _replace(self, model: RunnerProcess, reason: str) -> None:
        if model.pid:
            self._tried_at[model.pid] = time.monotonic()
        try:
            await self._manager.replace(model, reason)
        except ServiceError as error:
            logs.models.error("{} could not be replaced: {}", model.entry.name, error.message)
