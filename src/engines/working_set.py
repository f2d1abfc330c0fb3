"""`python -m src.engines.working_set`: prints how many bytes Metal lets programs use, as the engine's library here sees it."""

from importlib.util import find_spec


def working_set() -> int:
    """0 where there is no such device."""
    if find_spec("mlx"):
        import mlx.core as mx

        return int(mx.device_info().get("max_recommended_working_set_size", 0))
    from src.engines.llamacpp.device import GPU, INTEGRATED_GPU, memory

    return memory(GPU, INTEGRATED_GPU).total


if __name__ == "__main__":
    print(working_set())
