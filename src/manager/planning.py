"""From a model of the catalog and the settings to what its runner is told: engine, context, sequences. Starts nothing."""

import os
import sys
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from src import engines
from src.catalog import ModelEntry
from src.engines.base import EngineOptions
from src.errors import ModelLoadFailed
from src.manager import memory, openmp
from src.manager.supervise import Attempt
from src.settings import Settings
from src.spec import RunnerSpec

# Large blocks on huge pages: the KV cache is zeroed when it is made, which took 3.5 s for 3.8 GB page by page and 0.8 s so.
HUGE_PAGES = "glibc.malloc.hugetlb=1"


class Plan(NamedTuple):
    """One way to run a model."""

    engine: str
    fit: memory.Fit
    memory: memory.Memory  # that it was made for


class Planner:
    def __init__(self, settings: Settings, run_dir: Path) -> None:
        self._settings = settings
        self._run_dir = run_dir
        self._numbers = 0

    def engines(self, entry: ModelEntry) -> list[str]:
        """The engine chosen for a model, then those to fall to. Raises ModelLoadFailed that says why there is none."""
        if entry.problem:
            raise ModelLoadFailed(f"The model {entry.name} cannot be loaded: {entry.problem}. Download it again, or remove it.")
        settings, options = self._settings, entry.options
        wanted = settings.inference_engine
        asked = f"INFERENCE_ENGINE={wanted}"
        if options.engine and wanted != "echo":
            wanted, asked = options.engine, f'engine = "{options.engine}" in models.toml'
        chosen = engines.choose(wanted, entry.format, asked)
        if options.lora and chosen not in ("llama_cpp", "vllm"):
            raise ModelLoadFailed(
                f"{chosen} takes no LoRA adapters here, llama_cpp and vllm do: remove lora of {entry.name} from models.toml, or use a GGUF."
            )
        if options.adapters and chosen != "vllm":
            raise ModelLoadFailed(
                f"{chosen} takes no adapters by name here, vllm does: remove adapters of {entry.name} from models.toml, or set lora, "
                "which llama_cpp applies to all answers."
            )
        others = [name for name, reason in engines.reasons(entry.format).items() if reason is None and name != chosen]
        return [chosen, *(others if settings.engine_fallback and not (options.lora or options.adapters) else ())]

    def why_not(self, entry: ModelEntry) -> str | None:
        """Why no engine here can run a model; None where one can."""
        try:
            self.engines(entry)
        except ModelLoadFailed as error:
            return error.message
        return None

    def available(self, engine: str, runners: Iterable[int], promised: int) -> memory.Memory:
        """What there is for one more model on the device that `engine` uses."""
        return memory.available(self._device(engine), self._settings.memory_reserve * 2**20, runners, promised)

    def plan(self, entry: ModelEntry, engine: str, available: memory.Memory) -> Plan:
        """Raises ModelDoesNotFit with numbers and what would fit."""
        context_length = entry.options.context_length or self._settings.context_length
        sequences = entry.options.max_parallel_sequences or self._settings.max_parallel_sequences
        facts = entry.facts
        if engine == "llama_cpp" and self._settings.kv_cache_type == "q8_0":
            facts = msgspec.structs.replace(facts, kv_bytes_per_token=int(facts.kv_bytes_per_token * memory.Q8_0))
        if engine == "vllm" and available.kind == "cuda":
            # vLLM takes its share of the GPU (GPU_MEMORY_UTILIZATION) and admits as many sequences as find room in it.
            fit = memory.fit(entry.name, facts, available, context_length, 1)
            return Plan(engine, fit._replace(sequences=sequences), available)
        process = memory.PROCESS_BYTES
        if engine == "vllm":
            tensor, pipeline, copies = (self._vllm(entry).get(f"{kind}_parallel_size", 1) for kind in ("tensor", "pipeline", "data"))
            process = memory.VLLM_BYTES + tensor * pipeline * copies * memory.VLLM_RANK_BYTES
            facts = memory.several(facts, copies)
        return Plan(engine, memory.fit(entry.name, facts, available, context_length, sequences, process), available)

    def attempt(self, entry: ModelEntry, plan: Plan) -> Attempt:
        """What a runner is started with."""
        return Attempt(self.spec(entry, plan), plan.fit.need.total, self.environ(plan.engine))

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
            options=EngineOptions(
                model_path=entry.path,
                device=settings.device_type,
                context_length=plan.fit.context_length if entry.format != "echo" else settings.context_length,
                max_sequences=plan.fit.sequences,
                cached_prefixes=settings.cached_prefixes,
                threads=self._threads(),
                memory_bytes=plan.memory.free,
                memory_fraction=settings.mlx_memory_fraction,
                kv_type=settings.kv_cache_type,
                step_time_target=settings.step_time_target_ms / 1000,
                lora=tuple(str(settings.models_path / file) for file in entry.options.lora),
                adapters={name: str(settings.models_path / folder) for name, folder in entry.options.adapters.items()},
                vllm=self._vllm(entry) if plan.engine == "vllm" else {},
                step_delay=settings.echo_step_ms / 1000,
                fault=settings.echo_fault,
            ),
        )

    def _vllm(self, entry: ModelEntry) -> dict[str, Any]:
        """vLLM's own settings of a model: those of all models, and those that it has in models.toml."""
        return {**self._settings.vllm, **entry.options.vllm_settings()}

    def environ(self, engine: str) -> dict[str, str]:
        """Of a runner's process: no secrets, which it has no use for."""
        tunables = [HUGE_PAGES, *filter(None, [os.environ.get("GLIBC_TUNABLES")])]  # the operator's own come last and win
        return {
            **os.environ,
            **(openmp.environ(self._threads()) if engine != "vllm" else {}),  # vLLM places its workers' threads itself
            **self._settings.as_environ(),
            "GLIBC_TUNABLES": ":".join(tunables),
        }

    def _threads(self) -> int:
        return self._settings.threads or openmp.cores()

    def _device(self, engine: str) -> str:
        """cpu, mps or cuda: where the model's memory is taken from. A guess by what is installed: engines are not imported."""
        if self._settings.device_type != "auto":
            return self._settings.device_type
        if engine == "echo":
            return "cpu"
        if sys.platform == "darwin":
            return "mps"
        if engine == "vllm" or (engine == "llama_cpp" and _llama_cpp_has_cuda()):
            return "cuda" if Path("/proc/driver/nvidia/version").exists() else "cpu"
        return "cpu"


def _llama_cpp_has_cuda() -> bool:
    found = find_spec("llama_cpp")
    return bool(found and found.origin and any(Path(found.origin).parent.glob("lib/*ggml-cuda*")))
