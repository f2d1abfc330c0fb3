"""vLLM's engine core, in processes of its own: started, asked, watched and ended. Knows no job."""

import select
import threading
import time
from pathlib import Path
from typing import Any

from vllm import LLMEngine, PoolingParams, SamplingParams
from vllm.exceptions import VLLMValidationError
from vllm.inputs.engine import tokens_input
from vllm.lora.request import LoRARequest
from vllm.v1.engine import EngineCoreOutputs
from vllm.v1.engine.exceptions import EngineDeadError

from src.engines.vllm import VLLMOptions
from src.engines.vllm.arguments import adapters, engine_arguments
from src.engines.vllm.data_parallel import Copies, starting
from src.errors import EngineDead, EngineError, ModelLoadFailed

CLOSE_SECONDS = 1.0  # the core gets to end by itself; then it is killed


class Core:
    """Takes prompts by number, computes all of them together, step by step, and tells what each step brought."""

    def __init__(self, options: VLLMOptions) -> None:
        """Raises ModelLoadFailed."""
        self._llm = _start(options)
        self._copies = Copies(self._llm.engine_core)
        self._adapters = {"": None, **self._load_adapters(options)}
        threading.Thread(target=_tell_of_death, args=(self._llm.engine_core,), name="vllm-death", daemon=True).start()
        self.config = self._llm.vllm_config
        self.context_length: int = self.config.model_config.max_model_len
        self.device: str = self.config.device_config.device_type
        self.slots: int = len(self._copies.cores) * self.config.scheduler_config.max_num_seqs
        self.embeds: bool = self.config.model_config.runner_type == "pooling"  # such a model does nothing else
        self.compute_seconds = 0.0
        cache = self.config.cache_config
        self.kv_tokens: int = (cache.num_gpu_blocks - len(self._copies.cores)) * cache.block_size  # each keeps a block for itself
        self.vocab_size: int = self.config.model_config.get_vocab_size()
        self._woken = self._waiting = False

    def check_adapter(self, adapter: str) -> None:
        """Raises EngineError for one that was not loaded."""
        if adapter not in self._adapters:
            raise EngineError(f"The model was loaded without the adapter {adapter!r}: load it anew.")

    def add(self, number: int, tokens: list[int], params: SamplingParams | PoolingParams, adapter: str = "", scope: str = "") -> None:
        """`scope`: prefixes are found within one only. Raises EngineError where vLLM refuses it, EngineDead."""
        prompt = tokens_input(tokens, cache_salt=scope or None)
        try:
            with self._copies.core_for(number):
                self._llm.add_request(str(number), prompt, params, lora_request=self._adapters[adapter])
        except EngineDeadError as error:
            raise EngineDead(f"vLLM's engine core has died: {error}") from error
        except (ValueError, VLLMValidationError) as error:  # what vLLM checks of its parameters
            self._copies.forget(number)
            raise EngineError(f"vLLM refuses this request: {error}") from error

    def abort(self, number: int) -> None:
        with self._copies.core_for(number):
            self._llm.abort_request([str(number)])
        self._copies.forget(number)

    def wait(self) -> list[Any] | None:
        """vLLM's outputs of the next step, for those that got further; None when woken, be it before. Raises EngineDead."""
        began = time.perf_counter()
        self._waiting = True  # before the look at _woken, as wake() looks after it has set that: no wake is lost
        try:
            outputs: list[Any] = [] if self._woken else self._llm.step()
        except EngineDeadError as error:
            raise EngineDead(f"vLLM's engine core has died: {error}") from error
        finally:
            self._waiting = False
        self.compute_seconds += time.perf_counter() - began
        for output in outputs:
            if output.finished:
                self._copies.forget(int(output.request_id))
        if self._woken and not outputs:
            self._woken = False
            return None
        return outputs

    def wake(self) -> None:
        """By any thread: who waits returns, and who is about to wait does not."""
        self._woken = True
        if self._waiting:
            self._llm.engine_core.outputs_queue.put_nowait(EngineCoreOutputs())

    def close(self) -> None:
        self._llm.engine_core.shutdown(timeout=CLOSE_SECONDS)

    def _load_adapters(self, options: VLLMOptions) -> dict[str, LoRARequest]:
        """All of them, now: else vLLM would find out what is wrong with one when the first job wants it."""
        loaded = {}
        for number, (name, folder) in enumerate(adapters(options).items(), 1):
            loaded[name] = LoRARequest(str(number), number, folder)
            try:
                for core in self._copies.cores:
                    with self._copies.speaking_to(core):
                        self._llm.add_lora(loaded[name])
            except Exception as error:  # whatever its files make vLLM's core raise
                self.close()
                model = Path(options.model_path).name
                raise ModelLoadFailed(f"vLLM cannot apply the LoRA adapter {folder} to {model}: {_reason(error)[:300]}") from error
        return loaded


def _start(options: VLLMOptions) -> LLMEngine:
    name = Path(options.model_path).name
    try:
        with starting():
            return LLMEngine.from_engine_args(engine_arguments(options), enable_multiprocessing=True)
    except ModelLoadFailed:
        raise
    except Exception as error:  # whatever settings and files that it was not written for make it raise
        raise ModelLoadFailed(f"vLLM cannot load {name}: {_reason(error)}") from error


def _tell_of_death(core: Any) -> None:
    """vLLM notes that its core's process is gone, but wakes nobody who waits for what it computes."""
    ends = select.poll()
    for descriptor in core.resources.engine_manager.sentinels():
        ends.register(descriptor, select.POLLIN)
    ends.poll()
    core.outputs_queue.put_nowait(EngineDeadError())


def _reason(error: Exception) -> str:
    """Pydantic's report of one wrong setting is many lines, of which the second says it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    reason = lines[1] if len(lines) > 1 and "validation error" in lines[0] else (lines or [""])[0]
    return f"{type(error).__name__}: {reason}"
