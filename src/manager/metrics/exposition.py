"""The text that Prometheus reads: looks at runners, processes and the machine, then writes every family. Counts no request."""

import asyncio
import subprocess
from collections.abc import Iterable
from pathlib import Path

import psutil
from prometheus_client import Metric, generate_latest
from prometheus_client.registry import Collector

from src.manager.fleet import Fleet
from src.manager.metrics import families as own
from src.manager.metrics.aliases import VLLMNames
from src.manager.processes import ProcessTable
from src.manager.runner_process import RunnerProcess
from src.protocol import ProcessUse, RunnerStats

SCRAPE_SECONDS = 10.0  # what a scrape may take; Prometheus' own default
_NVIDIA = Path("/proc/driver/nvidia/version")


class Exposition:
    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._processes = ProcessTable()
        self._cpu: dict[int, float] = {}  # seconds counted, by process id
        own.CORES.set(psutil.cpu_count() or 1)

    async def text(self, models: list[str] | None = None) -> str:
        """With `models`, without the figures of others."""
        await self._look()
        metrics = [*own.REGISTRY.collect(), *VLLMNames().collect()]
        return generate_latest(_Collected(metrics if models is None else _only_of(metrics, {"", *models}))).decode()

    async def _look(self) -> None:
        models = self._fleet.ready()
        stats, gpus = await asyncio.gather(asyncio.gather(*(model.stats() for model in models)), asyncio.to_thread(_gpus))
        # No await from here to the text: two scrapes must not see each other's half.
        _note_runners(zip(models, stats, strict=True))
        self._note_processes(self._processes.sample(self._fleet.runners()))
        memory = psutil.virtual_memory()
        own.MEMORY_TOTAL.set(memory.total)
        own.MEMORY_USED.set(memory.total - memory.available)
        for index, total, used, busy in gpus:
            own.GPU_TOTAL.labels(index).set(total)
            own.GPU_USED.labels(index).set(used)
            own.GPU_BUSY.labels(index).set(busy)

    def _note_processes(self, uses: list[ProcessUse]) -> None:
        own.PROCESS_MEMORY.clear()
        own.PROCESSES.clear()
        for use in uses:
            labels = (use.name, use.model or "")
            own.PROCESS_CPU.labels(*labels).inc(max(0.0, use.cpu_seconds - self._cpu.get(use.pid, 0.0)))
            own.PROCESS_MEMORY.labels(*labels).inc(use.rss_bytes)
            own.PROCESSES.labels(*labels).inc()
        self._cpu = {use.pid: use.cpu_seconds for use in uses}


def _only_of(metrics: list[Metric], models: set[str]) -> list[Metric]:
    """What is of no model, or of one of these."""
    for metric in metrics:
        metric.samples = [sample for sample in metric.samples if sample.labels.get("model", sample.labels.get("model_name", "")) in models]
    return metrics


class _Collected(Collector):
    def __init__(self, metrics: list[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self._metrics


def _note_runners(found: Iterable[tuple[RunnerProcess, RunnerStats | None]]) -> None:
    gauges = (own.RUNNING, own.WAITING, own.SLOTS, own.KV_USED, own.KV_TOTAL, own.KV_RATIO)
    for gauge in (own.LOADED, *gauges):
        gauge.clear()
    for model, stats in found:
        name = model.entry.name
        own.LOADED.labels(name, model.spec.engine).set(1)
        if stats:
            engine = stats.engine
            ratio = engine.kv_used / engine.kv_total if engine.kv_total else 0.0
            values = (engine.running, engine.waiting, engine.slots, engine.kv_used, engine.kv_total, ratio)
            for gauge, value in zip(gauges, values, strict=True):
                gauge.labels(name).set(value)


def _gpus() -> list[tuple[str, float, float, float]]:
    """(index, bytes, bytes used, share of time busy) of each NVIDIA GPU, by nvidia-smi; none where it does not answer."""
    if not _NVIDIA.exists():
        return []
    query = ["nvidia-smi", "--query-gpu=index,memory.total,memory.used,utilization.gpu", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=SCRAPE_SECONDS / 2, check=True).stdout
        rows = [[part.strip() for part in line.split(",")] for line in answer.splitlines()]
        return [(index, float(total) * 2**20, float(used) * 2**20, float(busy) / 100) for index, total, used, busy in rows]
    except (OSError, subprocess.SubprocessError, ValueError):
        return []
