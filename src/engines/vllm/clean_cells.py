"""NaN in a KV cell does not reach who has the cell next. vLLM's attention on CPUs multiplies what is masked by 0, which NaN survives."""

from vllm.platforms import current_platform
from vllm.v1.kv_cache_interface import KVCacheConfig


def install() -> None:
    """In each of vLLM's processes: they wipe a block before it is used again, as they do for models with recurrent states."""
    if current_platform.is_cpu():
        KVCacheConfig.needs_kv_cache_zeroing = property(lambda config: True)
