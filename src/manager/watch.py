"""What happens to loaded models without being asked for: idle ones are unloaded; old, grown or hung ones replaced. Nothing else."""

import asyncio
import time

from src import logs
from src.errors import ServiceError
from src.manager import memory
from src.manager.hangs import Hangs
from src.manager.manager import Manager
from src.manager.supervise import Supervised
from src.protocol import RunnerStats

WATCH_SECONDS = 1.0


async def watch(manager: Manager) -> None:
    """Runs till it is cancelled."""
    replacing: set[asyncio.Task[None]] = set()
    hangs = Hangs(manager.settings.engine_stall_seconds)
    while True:
        await asyncio.sleep(WATCH_SECONDS)
        manager.note_loaded()
        models = manager.fleet.ready()
        said = dict(zip(models, await asyncio.gather(*(model.stats() for model in models)), strict=True))
        hanging = hangs.look({model.pid: stats for model, stats in said.items() if model.pid and model.state == "ready"})
        for model, stats in said.items():
            if model.state != "ready":
                continue
            if model.pid in hanging:
                await model.replace_process(hanging[model.pid])
                continue
            await _unload_if_idle(manager, model, stats)
            if why := _why_replace(manager, model):
                task = asyncio.create_task(_replace(manager, model, why))
                replacing.add(task)
                task.add_done_callback(replacing.discard)


async def _unload_if_idle(manager: Manager, model: Supervised, stats: RunnerStats | None) -> None:
    options = model.entry.options
    limit = manager.settings.model_idle_seconds if options.ttl is None else options.ttl
    if stats is None or stats.running + stats.waiting:
        model.used_at = time.monotonic()
    elif limit and not options.pinned and time.monotonic() - max(model.used_at, model.ready_at) > limit:
        async with manager.fleet.lock:
            if manager.fleet.serving(model.entry.name) is model and time.monotonic() - model.used_at > limit:
                manager.fleet.retire(model, f"it was idle for {limit:g} s", "idle")


def _why_replace(manager: Manager, model: Supervised) -> str | None:
    settings, name = manager.settings, model.entry.name
    if name in manager.fleet.successors or manager.fleet.serving(name) is not model or not model.pid:
        return None
    age = time.monotonic() - max(model.ready_at, model.replace_tried_at)
    if settings.runner_max_age and age > settings.runner_max_age:
        return f"its process has reached RUNNER_MAX_AGE={settings.runner_max_age:g} s"
    growth = (memory.private_bytes(model.pid) - model.first_private_bytes) // 2**20
    tried_lately = model.replace_tried_at and time.monotonic() - model.replace_tried_at < 60
    if settings.runner_max_rss_growth and growth > settings.runner_max_rss_growth and not tried_lately:
        return f"its process has grown by {growth} MiB, more than RUNNER_MAX_RSS_GROWTH={settings.runner_max_rss_growth}"
    return None


async def _replace(manager: Manager, model: Supervised, why: str) -> None:
    model.replace_tried_at = time.monotonic()
    try:
        await manager.replace(model, why)
    except ServiceError as error:
        logs.models.error("{} could not be replaced: {}", model.entry.name, error.message)
