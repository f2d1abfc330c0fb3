"""A GGUF in memory and a llama.cpp context for it: device, threads, KV cache."""

import ctypes
import platform
from collections import deque
from pathlib import Path
from typing import Any

import llama_cpp.llama_cpp as ll
import psutil

from src.engines.base import KVCacheChoice
from src.engines.llamacpp import LlamaCppOptions, kv_measurement
from src.engines.llamacpp.candidates import Candidates
from src.engines.llamacpp.device import GPU, INTEGRATED_GPU, choose_device, free_memory
from src.engines.llamacpp.kv_types import F16, KV_TYPES, KVTypes
from src.engines.llamacpp.one_layer import AttentionShape
from src.engines.llamacpp.threads import ThreadPool
from src.engines.room import shrunk_context, shrunk_sequences
from src.errors import EngineDead, InsufficientMemory, ModelLoadFailed

BATCH_TOKENS = 512  # most tokens one llama_decode computes
GIB = 2**30
CLS, LAST = ll.LLAMA_POOLING_TYPE_CLS, ll.LLAMA_POOLING_TYPE_LAST  # of the metadata's pooling types; all others mean the mean here
WORK_BYTES = 64 * 2**20  # of a context for embeddings, beside its cells and logits

_errors: deque[str] = deque(maxlen=4)  # llama.cpp's last ones, so that a failed load can say why


@ll.llama_log_callback  # type: ignore[untyped-decorator]
def _keep_errors(level: int, text: bytes, _: Any) -> None:
    """llama.cpp holds a bare pointer to this for as long as the process lives: a function of the module outlives it."""
    if level == 4:  # GGML_LOG_LEVEL_ERROR
        _errors.append(text.decode(errors="replace").strip())


class LoadedModel:
    """The model, a context of `slots` KV streams, and the numbers an engine needs of them."""

    def __init__(self, options: LlamaCppOptions) -> None:
        """Raises ModelLoadFailed, naming the file, the reason and, where memory is short, the numbers."""
        _errors.clear()
        ll.llama_log_set(_keep_errors, ctypes.c_void_p())
        name = Path(options.model_path).name
        ll.llama_backend_init()
        params = ll.llama_model_default_params()
        self.device = choose_device(options.device, params)
        # Read before the weights are loaded; the manager's figure is the system's.
        memory = self._memory(options.memory_bytes)
        self.model = ll.llama_model_load_from_file(str(options.model_path).encode(), params)
        if not self.model:
            raise ModelLoadFailed(f"llama.cpp cannot load {name}: {'; '.join(_errors) or 'no reason given'}")
        self.vocab = ll.llama_model_get_vocab(self.model)
        self.n_vocab = ll.llama_vocab_n_tokens(self.vocab)
        self.n_swa = ll.llama_model_n_swa(self.model)
        self.end_tokens = [token for token in range(self.n_vocab) if ll.llama_vocab_is_eog(self.vocab, token)]
        self.candidates = Candidates(self.n_vocab)
        self.embedding_length = ll.llama_model_n_embd_out(self.model)
        self.pooling = int(_metadata(self.model, f"{_metadata(self.model, 'general.architecture')}.pooling_type") or 0)
        self._adapters = [self._load_adapter(path, name) for path in options.lora]  # before a context is made
        self.context_length = min(options.context_length, ll.llama_model_n_ctx_train(self.model))
        self.slots = options.max_sequences
        self.kv_cache = self._choose_kv_cache(options)
        kv_types = KV_TYPES[self.kv_cache.type]
        token_bytes = _kv_bytes_per_token(self.model, kv_types)
        if self.device != "cpu" and memory:
            self._shrink(options, token_bytes, memory - ll.llama_model_size(self.model))
        kv_bytes = self.slots * self.context_length * token_bytes
        if self.device != "cpu" and memory:
            self._refuse_if_too_large(kv_bytes, memory - ll.llama_model_size(self.model), name)
        self.context = self._make_context(options, kv_types)
        if not self.context and options.kv_type == "auto" and kv_types is not F16:  # a model without flash attention
            self.kv_cache = KVCacheChoice(type="f16")
            self.context = self._make_context(options, F16)
        if not self.context:
            raise ModelLoadFailed(
                f"llama.cpp cannot make a context of {self.slots} × {self.context_length} tokens for {name}: "
                f"{'; '.join(_errors) or 'no reason given'}. Lower CONTEXT_LENGTH or MAX_PARALLEL_SEQUENCES, or try another KV_CACHE_TYPE."
            )
        self._apply_adapters(self.context)
        self.memory = ll.llama_get_memory(self.context)
        self.generates = bool(self.memory)  # a model that sees all of a text at once, as BERT does, has no use for a KV cache
        self._threads = options.threads or 1
        self._pool = ThreadPool(self.device, self._threads)
        self._pool.attach(self.context)
        # Planned for, and not taken by weights and the context above. The rest of the machine may have grown since.
        self._left = memory - ll.llama_model_size(self.model) - kv_bytes if memory else None

    def _memory(self, planned: int) -> int:
        """Bytes that are free for it, 0 where that is not known. On a Mac the device's own figure leaves out what others have of it."""
        if self.device == "cpu":
            return planned
        free = free_memory(GPU, INTEGRATED_GPU)
        return min(free, planned or free) if self.device == "mps" else free

    def _shrink(self, options: LlamaCppOptions, token_bytes: int, free: int) -> None:
        """Take no more of what the operator left open than the device has room for."""
        if options.context_is_open:
            least = 1 if options.sequences_are_open else self.slots
            self.context_length = shrunk_context(self.context_length, least, token_bytes, free)
        if options.sequences_are_open:
            self.slots = shrunk_sequences(self.slots, self.context_length, token_bytes, free)

    def make_embedding_context(self, sequences: int, batch_tokens: int) -> Any:
        """A context that gives hidden states, of so many sequences that share the cells of one. It is the caller's to free.

        Raises InsufficientMemory.
        """
        needed = self.context_length * _kv_bytes_per_token(self.model, F16) + 4 * batch_tokens * self.n_vocab + WORK_BYTES
        free = psutil.virtual_memory().available if self.device == "cpu" else free_memory(GPU, INTEGRATED_GPU)
        if self.device == "cpu" and self._left is not None:
            free = min(free, max(0, self._left))
        if needed > free:
            raise InsufficientMemory(
                f"Embeddings need {needed / GIB:.2f} GiB beside this model, but {free / GIB:.2f} GiB are free. "
                "The operator can lower CONTEXT_LENGTH or MAX_PARALLEL_SEQUENCES."
            )
        params = ll.llama_context_default_params()
        params.n_ctx = self.context_length
        params.n_seq_max = sequences
        params.n_batch = params.n_ubatch = batch_tokens
        params.n_threads = params.n_threads_batch = self._threads
        params.kv_unified = True
        params.embeddings = True
        params.pooling_type = ll.LLAMA_POOLING_TYPE_NONE
        params.no_perf = True
        context = ll.llama_init_from_model(self.model, params)
        if not context:
            raise InsufficientMemory(f"llama.cpp cannot make a context for embeddings: {'; '.join(_errors) or 'no reason given'}.")
        self._apply_adapters(context)
        self._pool.attach(context)
        return context

    def compute(self, context: Any, batch: Any) -> None:
        """A batch to its end. Raises EngineDead; then nothing of what it computed is of use.

        Metal's backend returns before its work is done, and only logs that it failed: what is read then is of the step before.
        """
        _errors.clear()
        code = ll.llama_decode(context, batch)
        ll.llama_synchronize(context)
        reasons = "; ".join(_errors)
        if code != 0:
            # Every sequence has its own cells and is bounded by the context: no code but 0 leaves the cache in a known state.
            raise EngineDead(f"llama_decode returned {code} for a batch of {batch.n_tokens} tokens: {reasons or 'no reason given'}")
        if any(text.startswith("ggml_") for text in _errors):
            raise EngineDead(f"The device failed on a batch of {batch.n_tokens} tokens: {reasons}")

    def _refuse_if_too_large(self, kv_bytes: int, free: int, name: str) -> None:
        """By the GPU's free memory as llama.cpp sees it, which the manager's plan does not know."""
        if kv_bytes > free:
            raise ModelLoadFailed(
                f"{name} with MAX_PARALLEL_SEQUENCES={self.slots} × CONTEXT_LENGTH={self.context_length} needs {kv_bytes / GIB:.1f} GiB "
                f"of KV cache, but {max(free, 0) / GIB:.1f} GiB of the GPU are free beside the weights. "
                f"{max(1, int(free * self.slots // kv_bytes))} sequences would fit; KV_CACHE_TYPE=q8_0 takes about half as much as f16."
            )

    def _apply_adapters(self, context: Any) -> None:
        if adapters := self._adapters:
            scales = (ctypes.c_float * len(adapters))(*[1.0] * len(adapters))
            ll.llama_set_adapters_lora(context, (ll.llama_adapter_lora_p_ctypes * len(adapters))(*adapters), len(adapters), scales)

    def _load_adapter(self, path: str, name: str) -> Any:
        """It is freed with the model."""
        adapter = ll.llama_adapter_lora_init(self.model, path.encode())
        if not adapter:
            raise ModelLoadFailed(
                f"llama.cpp cannot apply the LoRA adapter {Path(path).name} to {name}: {'; '.join(_errors) or 'no reason given'}. "
                "It has to be a GGUF made from an adapter of this very model."
            )
        return adapter

    def _choose_kv_cache(self, options: LlamaCppOptions) -> KVCacheChoice:
        if options.kv_type != "auto":
            return KVCacheChoice(type=options.kv_type)
        key_length, value_length = _head_sizes(self.model)
        if self.device != "cpu" or value_length % 32 != 0:
            return KVCacheChoice(type="f16")
        shape = AttentionShape(ll.llama_model_n_head(self.model), ll.llama_model_n_head_kv(self.model), key_length, value_length)
        timings = None
        if options.measurements and shape.kv_heads:
            request = kv_measurement.Request(("f16", "q8_0_values"), shape, self.slots, options.threads or 1)
            timings = kv_measurement.measured(Path(options.measurements), request)
        if timings is None:
            return KVCacheChoice(type="q8_0_values" if platform.machine() in ("x86_64", "AMD64") else "f16")
        seconds = {name: round(timing.request, 6) for name, timing in timings.items()}
        return KVCacheChoice(type=kv_measurement.fastest(timings), measured_seconds=seconds)

    def _make_context(self, options: LlamaCppOptions, kv_types: KVTypes) -> Any:
        params = ll.llama_context_default_params()
        params.n_ctx = self.context_length * self.slots
        params.n_seq_max = self.slots
        params.n_batch = params.n_ubatch = BATCH_TOKENS
        params.n_threads = params.n_threads_batch = options.threads or 1
        # A KV stream per sequence: attention then costs each sequence its own length, not that of all together.
        params.kv_unified = False
        params.type_k, params.type_v = kv_types.keys, kv_types.values
        params.no_perf = True
        return ll.llama_init_from_model(self.model, params)

    def close(self) -> None:
        ll.llama_free(self.context)
        self._pool.close()
        ll.llama_model_free(self.model)


def _kv_bytes_per_token(model: Any, kv_types: KVTypes) -> int:
    """Bytes one token takes in the KV cache of a model with attention in every layer (others take less)."""
    numbers = ll.llama_model_n_layer(model) * ll.llama_model_n_head_kv(model) * sum(_head_sizes(model)) / 2
    return max(1, int(numbers * kv_types.bytes))


def _head_sizes(model: Any) -> tuple[int, int]:
    """Numbers in one head's key and value."""
    architecture = _metadata(model, "general.architecture")
    width = ll.llama_model_n_embd(model) // max(1, ll.llama_model_n_head(model))
    key = int(_metadata(model, f"{architecture}.attention.key_length") or width)
    value = int(_metadata(model, f"{architecture}.attention.value_length") or width)
    return key, value


def _metadata(model: Any, key: str) -> str:
    buffer = ctypes.create_string_buffer(256)
    length = ll.llama_model_meta_val_str(model, key.encode(), buffer, len(buffer))
    return buffer.value.decode(errors="replace") if length > 0 else ""
