"""Loads a model once, in a runner of its own and without a server, to see whether it loads."""

import asyncio
import tempfile
from pathlib import Path

from src.catalog import Catalog, ModelEntry
from src.errors import ModelLoadFailed
from src.manager.child import Attempt
from src.manager.planning import Planner
from src.manager.runner_process import RunnerProcess
from src.settings import Settings


def check_load(folder: Path, settings: Settings) -> str | None:
    """Load what lies in a folder and let it answer a first prompt. None, or why this machine cannot try it at all.

    Raises ServiceError where it can, and the model does not load.
    """
    entry = Catalog(folder.parent).scan().get(folder.name)
    if entry is None or entry.problem:
        raise ModelLoadFailed(f"{folder.name} is broken: {entry.problem if entry else 'it holds no model'}")
    with tempfile.TemporaryDirectory(prefix="inference-") as run_dir:
        planner = Planner(settings.model_copy(update={"context_length": 512, "max_parallel_sequences": 1}), Path(run_dir))
        if why_not := planner.why_not(entry):
            return why_not
        engine = planner.engines(entry)[0]
        plan = planner.plan(entry, engine, planner.available(engine))
        asyncio.run(_load(entry, planner.attempt(entry, plan)))
    return None


async def _load(entry: ModelEntry, attempt: Attempt) -> None:
    model = RunnerProcess(entry, [attempt])
    model.start()
    try:
        await model.wait_ready()
    finally:
        await model.stop(grace=10)
