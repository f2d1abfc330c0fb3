"""A folder of safetensors in MLX's memory: device, limits, which tokens end an answer."""

from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx_lm.models.cache import can_trim_prompt_cache, make_prompt_cache
from mlx_lm.utils import load_model

from src.engines.mlx import MLXOptions
from src.engines.room import LEAST_CONTEXT
from src.errors import ModelLoadFailed
from src.hf_folder import end_tokens

BLOCK = 256  # tokens; caches grow by so many at a time
WARM_UP_TOKENS = 512
WORK_SHARE = 0.1  # of the memory beside the weights: activations of a step
GIB = 2**30


class LoadedModel:
    """The model and the numbers an engine needs of it."""

    def __init__(self, options: MLXOptions) -> None:
        """Raises ModelLoadFailed, naming the folder, the reason and, where memory is short, the numbers."""
        folder = Path(options.model_path)
        self._name = folder.name
        if options.kv_type not in ("auto", "f16"):
            raise ModelLoadFailed(
                f"KV_CACHE_TYPE={options.kv_type}: mlx-lm cannot batch quantised KV caches. Use auto with the engine MLX."
            )
        try:
            self.device = _choose_device(options.device)
            self._limit = self._limit_memory(options)
        except RuntimeError as error:  # an MLX for Metal where this process is given no GPU
            raise ModelLoadFailed(f"MLX cannot use the GPU here: {error}") from error
        self._refuse_if_too_large(folder)
        self.model, config = _load(folder)
        text = config.get("text_config", config)
        self.end_tokens = end_tokens(folder)
        self.layers: Any = _find_layers(self.model)
        self.embedding_length: int = text.get("hidden_size", 0) if self.layers else 0
        self._layers = self._measure_layers()
        # What KV caches may take: those of running jobs and those kept for their prefixes.
        self.room = max(0, int((self._limit - mx.get_active_memory()) * (1 - WORK_SHARE)))
        self.context_length = min(options.context_length, text.get("max_position_embeddings") or options.context_length)
        if options.context_is_open and (fits := self._fitting_context()) >= LEAST_CONTEXT:
            self.context_length = fits
        self._refuse_context()
        self.slots = options.max_sequences
        # Side by side, shorter prompts are padded, which some recurrent models take for tokens.
        self.prompts_together = self.slots if self.cuttable else 1
        if self.device == "mps":
            self._warm_up()

    def sequence_bytes(self, tokens: int) -> int:
        """What the KV cache of so many tokens takes; layers with a sliding window hold no more than it."""
        blocks = -(-tokens // BLOCK) * BLOCK
        return int(sum(size * min(blocks, window) for size, window in self._layers))

    def set_wired_limit(self) -> None:
        """Keep as much resident as may be used. After each making of a generator: mlx-lm sets a limit of its own there."""
        if self.device == "mps":
            mx.set_wired_limit(self._limit)

    def close(self) -> None:
        self.model = self.layers = None
        mx.clear_cache()

    def _limit_memory(self, options: MLXOptions) -> int:
        """Bytes this process may use: a share of what Metal recommends, on the CPU of the memory that is free.

        MLX holds to it by freeing buffers and by waiting for the GPU; it is no bound that cannot be crossed, so that the
        engine plans with it itself.
        """
        recommended = mx.device_info().get("max_recommended_working_set_size", 0) if self.device == "mps" else options.memory_bytes
        limit = int((recommended or mx.get_memory_limit()) * options.memory_fraction)
        if self.device == "mps" and options.memory_bytes:  # which leaves out what our other models have of it
            limit = min(limit, options.memory_bytes)
        mx.set_memory_limit(limit)
        return limit

    def _refuse_if_too_large(self, folder: Path) -> None:
        """Before Metal would swap, or the kernel end the process."""
        size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
        if size > self._limit:
            raise ModelLoadFailed(
                f"{self._name} has {size / GIB:.1f} GiB of weights, but MLX may use {self._limit / GIB:.1f} GiB here. "
                "Use a smaller or more quantised model, or raise MLX_MEMORY_FRACTION."
            )

    def _measure_layers(self) -> list[tuple[float, float]]:
        """(bytes of a token, tokens held at most) of every layer's KV cache. Computes a token, which also warms up."""
        caches = make_prompt_cache(self.model)
        unable = {type(cache).__name__ for cache in caches if not hasattr(cache, "merge")}
        if unable:
            raise ModelLoadFailed(f"mlx-lm cannot compute several sequences of {self._name} together: no batches of {', '.join(unable)}")
        cuttable = can_trim_prompt_cache(caches)
        logits = self.model(mx.array([[0]]), cache=caches)
        mx.eval(logits)
        self.vocab_size: int = logits.shape[-1]
        parts = [part for cache in caches for part in getattr(cache, "caches", [cache])]
        layers = [
            (part.nbytes / part.keys.shape[2], getattr(part, "max_size", float("inf")))
            for part in parts
            if getattr(part, "keys", None) is not None  # recurrent states have none, and do not grow
        ]
        # Sequences shorter than this can be cut back to where another one parts from them: no window has moved on.
        self.cuttable = min((window for _, window in layers), default=0.0) if cuttable else 0.0
        return layers

    def _warm_up(self) -> None:
        """Compute a prompt as mlx-lm does, and a token of every sequence together: a GPU has other kernels for each than for one token, and
        prepares them at their first use."""
        caches = make_prompt_cache(self.model)
        self.model(mx.zeros((1, min(WARM_UP_TOKENS, self.context_length - 1)), mx.int32), cache=caches)
        mx.eval([cache.state for cache in caches])
        if self.slots > 1:
            caches = make_prompt_cache(self.model)
            self.model(mx.zeros((1, 1), mx.int32), cache=caches)
            together = [cache.merge([cache] * self.slots) for cache in caches]
            mx.eval(self.model(mx.zeros((self.slots, 1), mx.int32), cache=together))
            del together
        del caches
        mx.clear_cache()

    def _fitting_context(self) -> int:
        """Tokens of one sequence that there is room for, at most those planned; 0 where not even a few fit."""
        return next((length for length in range(self.context_length, 0, -BLOCK) if self.sequence_bytes(length) <= self.room), 0)

    def _refuse_context(self) -> None:
        """By the memory that MLX may use, which the manager's plan does not know."""
        fits = self._fitting_context()
        if fits < self.context_length:
            raise ModelLoadFailed(
                f"{self._name} with CONTEXT_LENGTH={self.context_length} needs {self.sequence_bytes(self.context_length) / GIB:.2f} GiB of "
                f"KV cache for one sequence, but {self.room / GIB:.2f} GiB are free beside the weights; {fits} tokens would fit. "
                "Lower CONTEXT_LENGTH, raise MLX_MEMORY_FRACTION, or use a smaller model."
            )


def _choose_device(wanted: str) -> str:
    """Make it MLX's default device. "auto" takes the GPU where there is one."""
    metal = mx.metal.is_available()
    if wanted not in ("auto", "cpu") and not (wanted == "mps" and metal):
        raise ModelLoadFailed(f"DEVICE_TYPE={wanted}, but MLX has no such device here. Use auto or {'mps' if metal else 'cpu'}.")
    device = "mps" if metal and wanted != "cpu" else "cpu"
    mx.set_default_device(mx.gpu if device == "mps" else mx.cpu)
    return device


def _load(folder: Path) -> tuple[Any, dict[str, Any]]:
    try:
        model, config = load_model(folder, trust_remote_code=False)
    except Exception as error:  # whatever a model file that mlx-lm was not written for makes it raise
        raise ModelLoadFailed(f"mlx-lm cannot load {folder.name}: {type(error).__name__}: {error}") from error
    return model, config


def _find_layers(model: Any) -> Any | None:
    """The part of a model that ends in hidden states, before its head makes logits of them; None where mlx-lm has it elsewhere."""
    for part in (getattr(model, "language_model", model), model):
        layers = getattr(part, "model", None)
        if hasattr(layers, "embed_tokens"):
            return layers
    return None
