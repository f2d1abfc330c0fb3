"""KV_CACHE_TYPE=auto on a CPU is what this CPU computes faster, and no table of CPUs."""

import pytest

from src.engines import load_engine
from src.engines.llamacpp import kv_measurement
from src.engines.llamacpp.kv_measurement import Request, Timing, fastest, measured
from src.engines.llamacpp.one_layer import AttentionShape
from src.errors import ModelLoadFailed
from tests.engines.test_llamacpp import options
from tests.support.nan_model import noise_gguf

TYPES = ("f16", "q8_0_values")
SHAPE = AttentionShape(9, 3, 64, 64)
# Tokens a second of llama-batched-bench with SmolLM2 135M: prompts of 500 tokens, and 20 sequences that decode behind them.
RECORDED = {
    "AMD EPYC (Zen 4)": {"f16": (305, 200), "q8_0_values": (244, 144)},
    "Intel Xeon with AMX": {"f16": (1378, 157), "q8_0_values": (756, 315)},
}


@pytest.mark.parametrize(("processor", "right"), [("AMD EPYC (Zen 4)", "f16"), ("Intel Xeon with AMX", "q8_0_values")])
def test_what_two_processors_were_measured_at_is_decided_as_it_was_served(processor, right):
    timings = {name: Timing(1 / prefill, 1 / decode) for name, (prefill, decode) in RECORDED[processor].items()}
    assert fastest(timings) == right


def test_a_layer_of_this_shape_is_measured_once(tmp_path, monkeypatch):
    timings = measured(tmp_path, Request(TYPES, SHAPE, 4, 1))
    assert timings.keys() == set(TYPES)
    assert all(0 < timing.prefill < 0.1 and 0 < timing.decode < 0.1 for timing in timings.values())
    monkeypatch.setattr(kv_measurement, "_measure_apart", lambda _: None)
    assert measured(tmp_path, Request(TYPES, SHAPE, 4, 1)) == timings
    assert measured(tmp_path, Request(TYPES, SHAPE, 5, 1)) is None  # for another number of sequences it is another figure


def test_a_shape_that_ends_llama_cpps_process_is_not_measured(tmp_path):
    assert measured(tmp_path, Request(TYPES, AttentionShape(9, 2, 64, 64), 4, 1)) is None
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("faster", ["f16", "q8_0_values"])
def test_auto_is_what_was_measured_to_be_faster(model_path, tmp_path, monkeypatch, faster):
    timings = {name: Timing(0.001, 0.001 if name == faster else 0.002) for name in TYPES}
    monkeypatch.setattr(kv_measurement, "_measure_apart", lambda _: timings)
    engine = load_engine("llama_cpp", options(model_path, measurements=str(tmp_path)))
    engine.close()
    assert engine.kv_cache.type == faster
    assert engine.kv_cache.measured_seconds == {name: round(timing.request, 6) for name, timing in timings.items()}


def test_what_the_operator_set_is_not_measured(model_path, tmp_path):
    engine = load_engine("llama_cpp", options(model_path, kv_type="q8_0", measurements=str(tmp_path)))
    engine.close()
    assert (engine.kv_cache.type, engine.kv_cache.measured_seconds) == ("q8_0", {})
    assert not list(tmp_path.iterdir())


def test_only_what_was_left_open_falls_back_to_f16(tmp_path):
    """Of heads that are no whole blocks of 32 numbers, llama.cpp has no q8_0 cache."""
    path = tmp_path / "noise.gguf"
    path.write_bytes(noise_gguf())
    engine = load_engine("llama_cpp", options(path, context_length=256))
    engine.close()
    assert engine.kv_cache.type == "f16"
    with pytest.raises(ModelLoadFailed, match="KV_CACHE_TYPE"):
        load_engine("llama_cpp", options(path, context_length=256, kv_type="q8_0")).close()
