"""From a model of the catalog and the settings to what its runner is told: engine, context, sequences.

What sets one engine apart from another the registry says: no engine is asked by its name here.
"""

import os
import sys
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from src import engines
from src.catalog import ModelEntry
from src.engines import measurements
from src.engines.base import Feature
from src.errors import ModelLoadFailed
from src.manager import memory, openmp
from src.manager.child import Attempt
from src.protocol.launch import RunnerSpec
from src.settings import Settings

# Large blocks on huge pages: the KV cache is zeroed when it is made, which took 3.5 s for 3.8 GB page by page and 0.8 s so.
HUGE_PAGES = "glibc.malloc.hugetlb=1"


class Plan(NamedTuple):
    """One way to run a model."""

    engine: str
    fit: memory.Fit  # 0 sequences: as many as the engine has room for
    memory: memory.Memory  # that it was made for


class Planner:
    def __init__(self, settings: Settings, run_dir: Path) -> None:
        self._settings = settings
        self._run_dir = run_dir
        self._numbers = 0

    def engines(self, entry: ModelEntry) -> list[str]:
        """The engine chosen for a model, then those to fall to. Raises ModelLoadFailed that says why there is none."""
        if entry.problem:
            raise ModelLoadFailed(f"The model {entry.name} cannot be loaded: {entry.problem}. {entry.remedy}.")
        settings, options = self._settings, entry.options
        wanted = settings.inference_engine
        asked = f"INFERENCE_ENGINE={wanted}"
        if options.engine:
            wanted, asked = options.engine, f'engine = "{options.engine}" in models.toml'
        chosen = engines.choose(wanted, entry.format, asked)
        if options.lora:
            _require("lora", chosen, entry)
        if options.adapters:
            _require("adapters", chosen, entry)
        others = [name for name, reason in engines.reasons(entry.format).items() if reason is None and name != chosen]
        return [chosen, *(others if settings.engine_fallback and not (options.lora or options.adapters) else ())]

    def why_not(self, entry: ModelEntry) -> str | None:
        """Why no engine here can run a model; None where one can."""
        try:
            self.engines(entry)
        except ModelLoadFailed as error:
            return error.message
        return None

    def available(self, engine: str, taken: memory.Taken = memory.NOTHING) -> memory.Memory:
        """What there is for one more model on the device that `engine` uses."""
        return memory.available(self._device(engine), self._settings.memory_reserve * 2**20, taken, self.working_set_share(engine))

    def working_set_share(self, engine: str) -> float:
        """What it uses of what Metal recommends."""
        return self._settings.mlx_memory_fraction if "memory_fraction" in engines.ENGINES[engine].options.__struct_fields__ else 1.0

    def plan(self, entry: ModelEntry, engine: str, available: memory.Memory) -> Plan:
        """Raises ModelDoesNotFit with numbers and what would fit."""
        kind = engines.ENGINES[engine]
        context_length, sequences = self._asked_context(entry, engine), self._asked_sequences(entry)
        facts = entry.facts
        if "kv_quantised" in kind.features and self._settings.kv_cache_type == "q8_0":
            facts = msgspec.structs.replace(facts, kv_bytes_per_token=int(facts.kv_bytes_per_token * memory.Q8_0))
        if available.kind in kind.manages_memory_of:
            # It takes its share of the memory (GPU_MEMORY_UTILIZATION) and admits as many sequences as have room in it.
            fit = memory.fit(entry.name, facts, available, context_length, 1)
            return Plan(engine, fit._replace(sequences=sequences), available)
        fit = memory.fit(entry.name, facts, available, context_length, sequences, kind.footprint(self._own_fields(entry)))
        return Plan(engine, fit, available)

    def _asked_context(self, entry: ModelEntry, engine: str) -> int:
        """Tokens; 0: open."""
        return entry.options.context_length or self._settings.context_length or engines.ENGINES[engine].default_context or 0

    def _asked_sequences(self, entry: ModelEntry) -> int:
        return entry.options.max_parallel_sequences or self._settings.max_parallel_sequences

    def attempt(self, entry: ModelEntry, plan: Plan) -> Attempt:
        """What a runner is started with."""
        return Attempt(self.spec(entry, plan), plan.fit.need.total, plan.memory.free, self.environ(plan.engine))

    def spec(self, entry: ModelEntry, plan: Plan) -> RunnerSpec:
        settings = self._settings
        self._numbers += 1
        template = entry.options.chat_template
        return RunnerSpec(
            model=entry.name,
            engine=plan.engine,
            socket=str(self._run_dir / f"runner-{self._numbers}.sock"),  # a number: names may be long, socket paths may not
            max_requests=settings.max_concurrent_requests,
            tool_format=entry.options.tool_format,
            chat_template=str(settings.models_path / template) if template else None,
            matryoshka=None if entry.facts.matryoshka is None else list(entry.facts.matryoshka),
            options=self._options(entry, plan),
        )

    def _options(self, entry: ModelEntry, plan: Plan) -> dict[str, Any]:
        """Fields of the engine's own options."""
        settings = self._settings
        # An engine to fall back to has the plan of another, which may have been left to count its sequences itself.
        counts_itself = plan.memory.kind in engines.ENGINES[plan.engine].manages_memory_of
        fields = {
            "model_path": entry.path,
            "device": settings.device_type,
            "context_length": plan.fit.context_length,
            "max_sequences": plan.fit.sequences or (None if counts_itself else memory.DEFAULT_SEQUENCES),
            "context_is_open": not self._asked_context(entry, plan.engine),
            "sequences_are_open": not self._asked_sequences(entry),
            "cached_prefixes": settings.cached_prefixes,
            "threads": self._threads(),
            "memory_bytes": plan.memory.free,
            "step_time_target": settings.step_time_target_ms / 1000,
            **self._own_fields(entry),
        }
        options: dict[str, Any] = msgspec.to_builtins(engines.engine_options(plan.engine, fields))
        return options

    def _own_fields(self, entry: ModelEntry) -> dict[str, Any]:
        """What single engines have in their options. What the model's table in models.toml sets wins over the settings."""
        settings, options = self._settings, entry.options
        return {
            "memory_fraction": settings.mlx_memory_fraction,
            "kv_type": settings.kv_cache_type,
            "measurements": str(measurements.folder(Path(settings.run_dir))),
            "lora": tuple(str(settings.models_path / file) for file in options.lora),
            "adapters": {name: str(settings.models_path / folder) for name, folder in options.adapters.items()},
            "vllm": {**settings.vllm, **options.vllm_settings()},
            "step_delay": settings.echo_step_ms / 1000,
            "fault": settings.echo_fault,
        }

    def environ(self, engine: str) -> dict[str, str]:
        """Of a runner's process: no secrets, which it has no use for."""
        tunables = [HUGE_PAGES, *filter(None, [os.environ.get("GLIBC_TUNABLES")])]  # the operator's own come last and win
        return {
            **_relaxed_gpu_timeout(),
            **os.environ,
            **({} if engines.ENGINES[engine].places_threads else openmp.environ(self._threads())),
            **self._settings.as_environ(),
            "GLIBC_TUNABLES": ":".join(tunables),
        }

    def _threads(self) -> int:
        return self._settings.threads or openmp.cores()

    def _device(self, engine: str) -> str:
        """cpu, mps or cuda: where the model's memory is taken from."""
        wanted = self._settings.device_type
        return engines.ENGINES[engine].device() if wanted == "auto" else wanted


def _relaxed_gpu_timeout() -> dict[str, str]:
    """macOS ends GPU work that keeps a lit display waiting; this relaxes that. The GPU's driver reads it before MLX could set it,
    and MLX leaves it to its users: https://github.com/ml-explore/mlx/issues/3267"""
    return {"AGX_RELAX_CDM_CTXSTORE_TIMEOUT": "1"} if sys.platform == "darwin" else {}


def _require(feature: Feature, engine: str, entry: ModelEntry) -> None:
    """For a key of models.toml that has the feature's name. Raises ModelLoadFailed where the engine lacks it."""
    if feature not in engines.ENGINES[engine].features:
        able = " and ".join(engines.with_feature(feature))
        raise ModelLoadFailed(
            f"{engine} does not support {feature} in models.toml; {able} can. Remove {feature} of {entry.name}, or use a format they read."
        )
