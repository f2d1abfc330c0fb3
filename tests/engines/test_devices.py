"""A GPU computes what the CPU does, up to another order of sums: four streams at once on each device, held to the CPU's words.

All other tests of engines take the CPU, where equal is equal to the last bit. Where there is no GPU, its half skips.
"""

import sys

import pytest

from src.engines import engine_options, load_engine, why_not
from tests.engines.test_contract import Run, job
from tests.support.hf_model import hf_model

pytestmark = pytest.mark.macos

# What a logprob may differ by. llama.cpp's CPU kernels round what they multiply 4-bit weights with to 8 bits, a GPU's do not:
# as much as in tests/support/llamacpp_greedy.py.
NEAR = {"llama_cpp": 0.6, "mlx": 0.05}
FIRST = 6  # tokens of each stream
LIKELIEST = 20


def gpu(engine: str) -> str:
    """Its name, as DEVICE_TYPE has it. Skips without one."""
    if engine == "mlx":
        import mlx.core as mx

        there = mx.metal.is_available() and mx.device_count(mx.gpu) > 0
    else:
        import llama_cpp

        from src.engines.llamacpp.device import GPU, INTEGRATED_GPU, memory

        there = llama_cpp.llama_supports_gpu_offload() and memory(GPU, INTEGRATED_GPU).total > 0
    if not there:
        pytest.skip(f"{engine} has no GPU here")
    return "mps" if sys.platform == "darwin" else "cuda"


def answers(engine: str, device: str, model_path, jobs: list) -> list[Run]:
    """One run for each list of jobs."""
    path = hf_model("float32") if engine == "mlx" else model_path
    fields = {"model_path": str(path), "context_length": 256, "max_sequences": 4, "cached_prefixes": 0, "threads": 1, "device": device}
    loaded = load_engine(engine, engine_options(engine, fields))
    try:
        assert loaded.device.split(":")[0] == device
        return [Run(loaded, together) for together in jobs]
    finally:
        loaded.close()


def stream(id: int):
    return job(id, length=70, start=40 + id, temperature=0.0, max_tokens=FIRST, logprobs=LIKELIEST)


@pytest.mark.parametrize("device", ["cpu", "gpu"])
@pytest.mark.parametrize("engine", ["llama_cpp", "mlx"])
def test_streams_beside_others_say_what_the_cpu_says_of_each_alone(engine, device, model_path):
    if reason := why_not(engine):
        pytest.skip(reason)
    device = gpu(engine) if device == "gpu" else device
    alone = answers(engine, "cpu", model_path, [[stream(id)] for id in range(4)])
    (together,) = answers(engine, device, model_path, [[stream(id) for id in range(4)]])
    for id in range(4):
        compared = 0
        for place, (right, given) in enumerate(zip(alone[id].logprobs[id], together.logprobs[id], strict=True)):
            likely, found = dict(right.top), dict(given.top)
            both = likely.keys() & found.keys()
            assert len(both) > LIKELIEST / 2, "the likeliest are the same"
            assert all(abs(likely[token] - found[token]) <= NEAR[engine] for token in both), (id, place)
            compared += 1
            right_token, token = alone[id].tokens[id][place], together.tokens[id][place]
            if token != right_token:  # a near tie: from here on these are two texts
                assert likely[right_token] - likely[token] <= 2 * NEAR[engine]
                break
        assert compared
