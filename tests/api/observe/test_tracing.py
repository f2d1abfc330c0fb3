"""Traces, as a collector receives them: one for each request for text, with its parts in order, and no text in them."""

import http.server
import sys
import threading

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from src.api.observe import tracing
from src.errors import SettingsError
from src.settings import Settings
from tests.support.http_server import LocalServer
from tests.support.server import Server, free_port, wait_until

pytestmark = pytest.mark.slow

CANARY = "canary-in-the-prompt"


class Collector:
    """Takes OTLP over HTTP. `spans` by name, in the order they came."""

    def __init__(self) -> None:
        collector = self
        self.bodies: list[bytes] = []
        self.spans: list = []
        self.services: set[str] = set()

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                assert self.path == "/v1/traces"
                collector._take(self.rfile.read(int(self.headers["Content-Length"])))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *arguments: object) -> None:
                pass

        self._server = LocalServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def _take(self, body: bytes) -> None:
        self.bodies.append(body)
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            self.services |= {item.value.string_value for item in resource.resource.attributes if item.key == "service.name"}
            self.spans += [span for scope in resource.scope_spans for span in scope.spans]

    def named(self, name: str) -> list:
        return [span for span in self.spans if span.name == name]

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture(scope="module")
def collector():
    collector = Collector()
    yield collector
    collector.close()


@pytest.fixture(scope="module")
def traced(collector):
    settings = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": 100}
    with Server(INFERENCE_ENGINE="echo", ECHO_STEP_MS=10, MAX_PARALLEL_SEQUENCES=1, disposable=True, **settings) as server:
        yield server


def attributes(span) -> dict:
    return {item.key: getattr(item.value, item.value.WhichOneof("value")) for item in span.attributes}


def seconds(span) -> float:
    return (span.end_time_unix_nano - span.start_time_unix_nano) / 1e9


def test_a_request_is_a_trace_with_its_parts_in_order_under_the_callers(traced, collector):
    trace, parent = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    headers = {"traceparent": f"00-{trace}-{parent}-01", "X-Request-ID": "my-id"}
    body = {"model": "echo", "prompt": CANARY, "max_tokens": 20, "ignore_eos": True}
    answer = httpx.post(f"{traced.url}/v1/completions", json=body, headers=headers, timeout=30)
    assert answer.status_code == 200
    [request] = wait_until(lambda: collector.named("POST /v1/completions"), what="the trace")
    assert (request.trace_id.hex(), request.parent_span_id.hex()) == (trace, parent)
    said = attributes(request)
    usage = answer.json()["usage"]
    assert said["gen_ai.usage.input_tokens"] == usage["prompt_tokens"]
    assert said["gen_ai.usage.output_tokens"] == 20
    assert (said["http.response.status_code"], said["gen_ai.request.id"], said["gen_ai.response.model"]) == (200, "my-id", "echo")

    [queue], [prefill], [decode] = (collector.named(name) for name in ("queue", "prefill", "decode"))
    for part in (queue, prefill, decode):
        assert (part.trace_id, part.parent_span_id) == (request.trace_id, request.span_id)
    assert request.start_time_unix_nano <= queue.start_time_unix_nano
    assert queue.end_time_unix_nano == prefill.start_time_unix_nano
    assert prefill.end_time_unix_nano == decode.start_time_unix_nano
    assert decode.end_time_unix_nano <= request.end_time_unix_nano
    assert seconds(prefill) >= 0.01
    assert 0.15 <= seconds(decode) <= seconds(request)
    assert collector.services == {"llm-inference-service"}


def test_no_trace_has_what_was_asked_or_answered(traced, collector):
    before = len(collector.named("POST /v1/chat/completions"))
    traced.client().chat.completions.create(model="echo", messages=[{"role": "user", "content": CANARY}])
    httpx.post(
        f"{traced.url}/v1/chat/completions", json={"model": CANARY, "messages": CANARY}, headers={"Authorization": f"Bearer {CANARY}"}
    )
    wait_until(lambda: len(collector.named("POST /v1/chat/completions")) == before + 2, what="both traces")
    assert not [body for body in collector.bodies if CANARY.encode() in body]


def test_waiting_and_failing_show(traced, collector):
    def ask(tokens: int, status: int) -> None:
        body = {"model": "echo", "prompt": "x", "max_tokens": tokens, "ignore_eos": True}
        assert httpx.post(f"{traced.url}/v1/completions", json=body, timeout=30).status_code == status

    before = len(collector.named("queue"))
    threads = [threading.Thread(target=ask, args=(40, 200)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ask(0, 400)
    spans = wait_until(lambda: len(found := collector.named("queue")) == before + 2 and found, what="both traces")
    assert max(seconds(span) for span in spans[before:]) > 0.3  # the second waited for the first: 40 tokens of 10 ms
    failed = wait_until(
        lambda: [span for span in collector.named("POST /v1/completions") if attributes(span)["http.response.status_code"] == 400],
        what="the refused request's trace",
    )
    assert attributes(failed[0])["error.type"] == "invalid_value"


def test_the_last_traces_of_a_worker_are_sent_before_it_ends():
    collector = Collector()
    try:
        settings = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": 60_000}
        with Server(INFERENCE_ENGINE="echo", **settings) as server:
            server.client().completions.create(model="echo", prompt="x")
            assert not collector.spans
        assert len(collector.named("POST /v1/completions")) == 1
    finally:
        collector.close()


def test_a_collector_that_is_gone_fails_no_request_and_delays_no_stop():
    with Server(
        INFERENCE_ENGINE="echo", OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{free_port()}", OTEL_BSP_SCHEDULE_DELAY=50
    ) as server:
        for _ in range(5):
            server.client().completions.create(model="echo", prompt="x")
        assert server.stop(timeout=15) == 0


@pytest.mark.macos
def test_on_macos_a_worker_asks_no_one_but_its_environment_for_proxies(collector, monkeypatch):
    def crash(*given: object) -> None:
        raise AssertionError("macOS ends a forked process here")

    monkeypatch.setattr(sys, "platform", "darwin")
    for name in ("urllib.request.getproxies", "urllib.request.proxy_bypass", "requests.utils.getproxies", "requests.utils.proxy_bypass"):
        monkeypatch.setattr(name, crash)
    monkeypatch.setattr(tracing, "BatchSpanProcessor", SimpleSpanProcessor)
    tracer = tracing.Tracer(collector.url)
    tracer._tracer.start_span("of-a-mac").end()
    assert collector.named("of-a-mac")


def test_an_endpoint_without_the_sdk_is_refused_at_the_start(monkeypatch):
    monkeypatch.setattr("src.settings._is_installed", lambda *modules: False)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318")
    with pytest.raises(SettingsError, match=r"requirements-tracing\.txt"):
        Settings.load(env_file=None)
