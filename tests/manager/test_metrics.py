"""The manager's figures: tokens are counted across restarts, vLLM's names say the same, GPUs are read where there are some."""

import pytest

from src.engines.base import EngineStats
from src.manager.metrics import aliases, count, exposition
from src.manager.metrics import families as own
from src.protocol import RequestEnded, RunnerStats, TokenGaps
from tests.support.metrics import Figures

# What dashboards made for vLLM cannot do without.
VLLM_MINIMUM = {
    "vllm:num_requests_running",
    "vllm:num_requests_waiting",
    "vllm:kv_cache_usage_perc",
    "vllm:prompt_tokens",
    "vllm:generation_tokens",
    "vllm:request_success",
    "vllm:prefix_cache_queries",
    "vllm:prefix_cache_hits",
    "vllm:time_to_first_token_seconds",
    "vllm:inter_token_latency_seconds",
    "vllm:e2e_request_latency_seconds",
    "vllm:request_queue_time_seconds",
}


def stats(asked: int, hit: int, generated: int) -> RunnerStats:
    engine = EngineStats(prefix_asked=asked, prefix_hit=hit, generated=generated)
    return RunnerStats(engine=engine, steps=0, step_seconds=0, tokens_per_second=0)


def figures() -> Figures:
    return Figures(exposition.generate_latest(exposition._Collected([*own.REGISTRY.collect(), *aliases.VLLMNames().collect()])).decode())


def ended(model: str, **fields: object) -> RequestEnded:
    return RequestEnded(**{"route": "POST /v1/completions", "status": 200, "seconds": 1.0, "model": model, **fields})


def test_tokens_go_on_where_a_runner_begins_again_at_zero():
    meter = count.TokenMeter("again")
    meter.note(stats(10, 4, 7))
    meter.note(stats(10, 4, 7))
    meter.restart()
    meter.note(stats(3, 0, 1))
    found = figures()
    assert found.sum("llm_prompt_tokens_total", model="again") == 13
    assert found.sum("llm_prompt_tokens_cached_total", model="again") == 4
    assert found.sum("llm_generation_tokens_total", model="again") == 8


def test_an_answer_of_a_runner_that_comes_late_counts_nothing_twice():
    meter = count.TokenMeter("late")
    meter.note(stats(10, 0, 20))
    meter.note(stats(8, 0, 15))
    meter.note(stats(10, 0, 21))
    assert figures().sum("llm_generation_tokens_total", model="late") == 21


def test_every_name_that_vllm_dashboards_need_is_there_and_says_what_ours_says():
    count.request_ended(
        ended("a", endings=["length"], prompt_tokens=3, completion_tokens=5, first_token_seconds=0.2, queue_seconds=0.1, decode_seconds=2)
    )
    count.token_gaps(TokenGaps(model="a", seconds=[0.01, 0.02]))
    assert set(aliases._SAME) >= VLLM_MINIMUM
    found = figures()
    labels = {"model_name": "a", "engine": "0"}
    assert found.sum("vllm:request_success_total", finished_reason="length", **labels) == 1
    assert found.sum("vllm:time_to_first_token_seconds_sum", **labels) == pytest.approx(0.2)
    assert found.sum("vllm:time_to_first_token_seconds_bucket", le="0.2", **labels) == 1
    assert found.sum("vllm:inter_token_latency_seconds_count", **labels) == 2
    assert found.sum("vllm:request_generation_tokens_sum", **labels) == 5


def test_what_never_became_an_answer_is_a_request_and_nothing_else():
    count.request_ended(ended("b", status=429))
    found = figures()
    assert found.sum("llm_requests_total", model="b", status="429") == 1
    assert not found.has("llm_generations_total", model="b")
    assert not found.has("llm_request_seconds_count", model="b")


def test_an_answer_whose_client_left_has_a_first_token_but_no_length_and_no_end():
    count.request_ended(ended("c", status=499, endings=["abort"], first_token_seconds=0.5, prompt_tokens=7))
    found = figures()
    assert found.sum("llm_generations_total", model="c", finish_reason="abort") == 1
    assert found.sum("llm_time_to_first_token_seconds_count", model="c") == 1
    assert not found.has("llm_request_seconds_count", model="c")


def test_the_targets_of_the_alert_rules_are_bounds_of_buckets():
    # A quantile is interpolated within a bucket: only at its bounds a comparison is exact.
    assert 5 in own._WHOLE
    assert 10 in own._LOADS


def test_gpus_are_told_by_nvidia_smi_and_a_broken_one_is_no_error(tmp_path, monkeypatch):
    smi = tmp_path / "nvidia-smi"
    smi.write_text("#!/bin/sh\necho '0, 81559, 40000, 37'\necho '1, 81559, 0, 0'\n")
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(exposition, "_NVIDIA", smi)
    assert exposition._gpus() == [("0", 81559 * 2**20, 40000 * 2**20, 0.37), ("1", 81559 * 2**20, 0.0, 0.0)]
    smi.write_text("#!/bin/sh\necho '0, [N/A], 1, 2'\n")
    assert exposition._gpus() == []
    monkeypatch.setattr(exposition, "_NVIDIA", tmp_path / "absent")
    assert exposition._gpus() == []
