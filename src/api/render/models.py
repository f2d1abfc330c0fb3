"""The public JSON of models, loads, downloads and processes. Only what is named here is published."""

from datetime import datetime, timezone
from typing import Any

from src.protocol import DownloadProgress, LoadProgress, ModelPlan, ModelState, ProcessUse, RunnerStats
from src.public_text import without_paths

JSON = dict[str, Any]


def _public(text: str | None) -> str | None:
    return text and without_paths(text)


def reasons(engines: dict[str, str | None]) -> JSON:
    """Each engine, with why it cannot run."""
    return {engine: _public(why_not) for engine, why_not in engines.items()}


def model(state: ModelState) -> JSON:
    """An entry of /v1/models: OpenAI's four fields, then ours, and the context by the names that clients look for."""
    progress, context = state.progress, state.context_length
    return {
        "id": state.name,
        "object": "model",
        "created": state.modified,
        "owned_by": "local",
        "state": state.state,
        "format": state.format,
        "size_bytes": state.size_bytes,
        **_described(state),
        "progress": progress and {"stage": progress.stage, "bytes_read": progress.bytes_read, "bytes_total": progress.bytes_total},
        "engine": state.engine,
        "context_length": context,
        "context_window": context,
        "max_model_len": context,
        "max_input_tokens": _most_input(state),
    }


def anthropic_model(state: ModelState) -> JSON:
    """An entry of /v1/models as Anthropic has it."""
    return {
        "type": "model",
        "id": state.name,
        "display_name": state.name,
        "created_at": datetime.fromtimestamp(state.modified, timezone.utc).isoformat().replace("+00:00", "Z"),
        "lifecycle": "active",
        "max_input_tokens": _most_input(state),
        "max_tokens": state.context_length,
    }


def _most_input(state: ModelState) -> int | None:
    """Tokens of a prompt: the completion needs one."""
    return None if state.context_length is None else state.context_length - 1


def model_status(state: ModelState) -> JSON:
    """A model of /v1/system/status: with its process's figures."""
    return {
        "name": state.name,
        "state": state.state,
        "format": state.format,
        "size_bytes": state.size_bytes,
        "modified": state.modified,
        **_described(state),
        "progress": state.progress and load_progress(state.progress),
        "engine": state.engine,
        "context_length": state.context_length,
        "device": state.device,
        "engine_version": state.engine_version,
        "load_seconds": state.load_seconds,
        "kv_cache": state.kv_cache and {"type": state.kv_cache.type, "measured_seconds": state.kv_cache.measured_seconds},
        "restarts": state.restarts,
        "stats": state.stats and _runner_stats(state.stats),
    }


def _described(state: ModelState) -> JSON:
    return {
        "reason": _public(state.reason),
        "note": _public(state.note),
        "places": [{"source": place.source, "folder": place.folder} for place in state.places],
        "aliases": state.aliases,
        "adapters": state.adapters,
        "parent": state.parent,
        "architecture": state.architecture,
        "parameters": state.parameters,
        "quantisation": state.quantisation,
        "trained_context_length": state.trained_context_length,
        "capabilities": state.capabilities,
        "engines": reasons(state.engines),
        "pinned": state.pinned,
    }


def _runner_stats(stats: RunnerStats) -> JSON:
    engine = stats.engine
    return {
        "running": engine.running,
        "waiting": engine.waiting,
        "slots": engine.slots,
        "kv_used": engine.kv_used,
        "kv_total": engine.kv_total,
        "longest_wait": round(engine.longest_wait, 3),
        "admitted": engine.admitted,
        "waited_seconds": round(engine.waited_seconds, 3),
        "prefix_hit": engine.prefix_hit,
        "prefix_asked": engine.prefix_asked,
        "generated": engine.generated,
        "resumed": stats.resumed,
        "preempted": stats.preempted,
        "invalid_outputs": stats.invalid_outputs,
        "steps": stats.steps,
        "step_seconds": stats.step_seconds,
        "compute_seconds": round(engine.compute_seconds, 3),
        "step_age": stats.step_age,
        "tokens_per_second": stats.tokens_per_second,
    }


def plan(model_plan: ModelPlan) -> JSON:
    return {
        "model": model_plan.model,
        "fits": model_plan.fits,
        "engines": reasons(model_plan.engines),
        "reason": _public(model_plan.reason),
        "engine": model_plan.engine,
        "fallback_engines": model_plan.fallback_engines,
        "loaded": model_plan.loaded,
        "beside_others": model_plan.beside_others,
        "context_length": model_plan.context_length,
        "max_parallel_sequences": model_plan.max_parallel_sequences,
        "memory_bytes": model_plan.memory_bytes,
        "device_memory": model_plan.device_memory,
        "memory_total": model_plan.memory_total,
        "memory_free": model_plan.memory_free,
        "memory_reserve": model_plan.memory_reserve,
    }


def load_progress(progress: LoadProgress) -> JSON:
    return {
        "model": progress.model,
        "stage": progress.stage,
        "bytes_read": progress.bytes_read,
        "bytes_total": progress.bytes_total,
    }


def download(progress: DownloadProgress) -> JSON:
    return {
        "name": progress.name,
        "repo": progress.repo,
        "source": progress.source,
        "stage": progress.stage,
        "bytes_read": progress.bytes_read,
        "bytes_total": progress.bytes_total,
        "reason": _public(progress.reason),
    }


def process(use: ProcessUse) -> JSON:
    return {
        "name": use.name,
        "pid": use.pid,
        "cpu_percent": use.cpu_percent,
        "cpu_seconds": use.cpu_seconds,
        "rss_bytes": use.rss_bytes,
        "threads": use.threads,
        "model": use.model,
    }
