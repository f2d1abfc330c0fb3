"""GET /metrics on real servers: what it says is what clients got, also with several workers and when one is killed."""

import contextlib
import os
import signal
from concurrent.futures import ThreadPoolExecutor

import httpx
import openai
import pytest

from src.api.app import create_app
from src.settings import Settings
from tests.support.metrics import Figures, scrape
from tests.support.server import Server, free_port, wait_until

ROUTE = "POST /v1/completions"


@pytest.fixture(scope="module")
def pair():
    """Two workers that share a port, and a model that takes 5 ms a token."""
    with Server(INFERENCE_ENGINE="echo", WORKERS=2, ECHO_STEP_MS=5, MAX_CONCURRENT_REQUESTS=64, disposable=True) as running:
        yield running


def ask(server: Server, count: int, **options: object) -> list:
    """So many requests, eight at a time, each on a connection of its own: the workers share them."""

    def one(number: int):
        with server.client() as client:
            return client.completions.create(
                model="echo", prompt=f"prompt {number}", max_tokens=5 + number % 7, extra_body={"ignore_eos": True, **options}
            )

    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(one, range(count)))


def settled(server: Server, count: float) -> Figures:
    """The figures once so many requests for text are in them: a worker tells of one just after its last byte."""

    def there() -> Figures | None:
        figures = scrape(server.url)
        return figures if figures.sum("llm_requests_total", route=ROUTE) >= count else None

    figures = wait_until(there, what=f"{count} requests in the figures")
    assert figures.sum("llm_requests_total", route=ROUTE) == count
    return figures


def counted(server: Server) -> float:
    return scrape(server.url).sum("llm_requests_total", route=ROUTE)


def test_what_both_workers_did_is_counted_once_and_agrees_with_the_answers(pair):
    before = settled(pair, counted(pair))
    answers = ask(pair, 40)
    after = settled(pair, before.sum("llm_requests_total", route=ROUTE) + 40)

    def grown(name: str, **labels: str) -> float:
        return after.sum(name, **labels) - before.sum(name, **labels)

    assert grown("llm_requests_total", route=ROUTE, model="echo", status="200") == 40
    assert grown("llm_generations_total", model="echo", finish_reason="length") == 40
    assert grown("llm_prompt_tokens_total", model="echo") == sum(answer.usage.prompt_tokens for answer in answers)
    assert grown("llm_generation_tokens_total", model="echo") == sum(answer.usage.completion_tokens for answer in answers)
    assert grown("llm_request_generation_tokens_sum", model="echo") == sum(answer.usage.completion_tokens for answer in answers)
    for name in ("time_to_first_token_seconds", "queue_seconds", "prefill_seconds", "decode_seconds", "request_seconds"):
        assert grown(f"llm_{name}_count", model="echo") == 40
    parts = sum(grown(f"llm_{name}_sum") for name in ("queue_seconds", "prefill_seconds", "decode_seconds"))
    assert 0 < parts <= grown("llm_request_seconds_sum")
    assert grown("llm_inter_token_latency_seconds_sum") <= grown("llm_request_seconds_sum")
    assert grown("llm_inter_token_latency_seconds_count") > 40


def test_a_worker_that_is_killed_takes_no_figure_along_and_leaves_none_twice(pair):
    began = counted(pair)
    ask(pair, 10)
    before = settled(pair, began + 10)
    victim = pair.pids("gateway")[0]
    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: len(pids := pair.pids("gateway")) == 2 and victim not in pids, what="a new worker")
    ask(pair, 10)
    after = settled(pair, began + 20)
    for sample in before.samples:
        if sample.name.endswith(("_total", "_bucket", "_count", "_sum")):
            assert after.sum(sample.name, **sample.labels) >= sample.value, sample
    assert len(after.series()) == len(after.samples)
    assert after.sum("llm_processes", process="gateway") == 2


def test_no_request_can_make_series_without_end(pair):
    with contextlib.suppress(openai.NotFoundError):
        pair.client().completions.create(model="first unknown one", prompt="x")
    httpx.get(f"{pair.url}/unknown")
    httpx.post(f"{pair.url}/health")
    httpx.get(f"{pair.url}/v1/models/unknown")
    before = scrape(pair.url)
    for number in range(20):
        with contextlib.suppress(openai.NotFoundError):
            pair.client().completions.create(model=f"unknown-{number}", prompt="x")
        httpx.get(f"{pair.url}/unknown/{number}?{number}")
        httpx.request(f"METHOD{number}", f"{pair.url}/health")
        httpx.get(f"{pair.url}/v1/models/unknown-{number}")
    after = wait_until(
        lambda: (found := scrape(pair.url)).sum("llm_requests_total", route="unmatched") >= 42 and found, what="the last of the requests"
    )
    assert after.series() - before.series() <= {("llm_requests_total", (("model", ""), ("route", "GET /metrics"), ("status", "200")))}
    assert not [sample for sample in after.samples if "unknown" in str(sample.labels)]


@pytest.fixture(scope="module")
def slow():
    with Server(INFERENCE_ENGINE="echo", ECHO_STEP_MS=20, MAX_PARALLEL_SEQUENCES=2, disposable=True) as running:
        yield running


def test_running_and_waiting_are_of_this_moment(slow):
    server = slow
    with ThreadPoolExecutor(3) as pool:
        answers = [pool.submit(ask, server, 1, max_tokens=100) for _ in range(3)]
        wait_until(
            lambda: (now := scrape(server.url)).sum("llm_requests_running") == 2 and now.sum("llm_requests_waiting") == 1,
            what="two that run and one that waits",
        )
        now = scrape(server.url)
        assert now.sum("llm_slots") == 2
        assert now.sum("llm_kv_cache_used_tokens") > 0
        assert now.sum("vllm:num_requests_running") == 2
        for answer in answers:
            answer.result()
        wait_until(lambda: scrape(server.url).sum("llm_requests_running") == 0, what="nothing that runs")


def stream(server: Server, tokens: int = 900):
    events = server.client().completions.create(
        model="echo", prompt="abc", max_tokens=tokens, stream=True, extra_body={"ignore_eos": True}, timeout=60
    )
    next(events)
    return events


@pytest.mark.slow
def test_streams_that_break_off_are_told_apart_by_whose_fault_it_was(slow):
    server = slow
    stream(server).close()
    wait_until(lambda: scrape(server.url).sum("llm_generations_total", finish_reason="abort") == 1, what="the client that left")
    assert scrape(server.url).sum("llm_requests_total", route=ROUTE, status="499") == 1

    before = wait_until(lambda: (now := scrape(server.url)).sum("llm_requests_running") == 0 and now, what="its job to end")
    ended = before.sum("llm_generations_total", finish_reason="length")
    events = stream(server, 300)
    os.kill(server.pids("runner")[0], signal.SIGKILL)
    assert len([event for event in events if event.choices and event.choices[0].text]) > 100  # it goes on in the next runner
    after = wait_until(
        lambda: (now := scrape(server.url)).sum("llm_generations_total", finish_reason="length") > ended and now, what="its end"
    )
    assert after.sum("llm_runner_restarts_total", model="echo") == 1
    assert after.sum("llm_resumes_total", model="echo") == 1
    assert after.sum("llm_generations_total", finish_reason="error") == 0
    assert after.sum("llm_model_loads_total", model="echo", outcome="ready") == 2
    assert after.sum("llm_model_load_seconds_count", model="echo", engine="echo") == 2
    assert after.sum("llm_generation_tokens_total") > before.sum("llm_generation_tokens_total")

    # The manager takes the figures along; they begin again, and the workers find the new one.
    os.kill(server.pids("manager")[0], signal.SIGKILL)
    wait_until(lambda: _metrics_of(server).sum("llm_model_loads_total", outcome="ready") == 1, what="the new manager's load")
    began = counted(server)
    ask(server, 3)
    settled(server, began + 3)

    httpx.post(f"{server.url}/v1/models/unload", json={"model_name": "echo"}, timeout=30).raise_for_status()
    gone = scrape(server.url)
    assert gone.sum("llm_model_unloads_total", model="echo", reason="asked") == 1
    assert not gone.has("llm_model_loaded")
    assert not gone.has("llm_requests_running")
    assert not gone.has("llm_process_resident_memory_bytes", process="runner")


def _metrics_of(server: Server) -> Figures:
    """Nothing while there is no manager."""
    response = httpx.get(f"{server.url}/metrics", timeout=10)
    return Figures(response.text if response.status_code == 200 else "")


def test_the_metrics_can_have_an_address_of_their_own_if_it_is_free():
    port = free_port()
    with Server(INFERENCE_ENGINE="echo", METRICS_ADDRESS=f"127.0.0.1:{port}", disposable=True) as server:
        ask(server, 2)
        own = f"http://127.0.0.1:{port}"
        wait_until(lambda: scrape(own).sum("llm_requests_total", route=ROUTE) == 2, what="both requests")
        assert scrape(own).sum("vllm:request_success_total") == 2
        assert httpx.get(f"{server.url}/metrics").status_code == 404

        with Server(INFERENCE_ENGINE="echo", METRICS_ADDRESS=f"127.0.0.1:{port}", wait=False) as second:
            assert second.process.wait(30) == 2
            assert f"port {port} on 127.0.0.1 is in use" in second.output
            assert "METRICS_ADDRESS" in second.output


def test_without_metrics_there_is_no_route():
    client = create_app(Settings(metrics=False)).test_client()
    assert client.get("/metrics").status_code == 404
