"""One trace a request for text, sent by OTLP over HTTP: request, and in it queue, prefill, decode. Never what was asked or answered.

Spans are made when a request has ended, from its record: nothing is carried along while it runs. Create a Tracer in a
worker, after gevent has patched it: the SDK sends from a thread, which then is a greenlet.
"""

import sys
import time
import urllib.request
from urllib.parse import urlsplit

import requests
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from src.api.observe.record import AccessRecord

SEND_SECONDS = 3.0  # for a batch; what a collector does not take by then is lost, and the stop of a worker waits no longer


class Tracer:
    """The names of attributes are OpenTelemetry's for HTTP and for generative AI. OTEL_SERVICE_NAME, OTEL_TRACES_SAMPLER,
    OTEL_EXPORTER_OTLP_HEADERS and their like are read by the SDK itself."""

    def __init__(self, endpoint: str) -> None:
        resource = Resource.create({"service.name": "llm-inference-service"}).merge(OTELResourceDetector().detect())
        provider = TracerProvider(resource=resource)
        url = f"{endpoint.rstrip('/')}/v1/traces"
        exporter = OTLPSpanExporter(endpoint=url, timeout=SEND_SECONDS, session=_session(url) if sys.platform == "darwin" else None)
        provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = provider.get_tracer("src.api")

    def request_ended(self, record: AccessRecord) -> None:
        if not record.rule.startswith("POST /v1/"):
            return
        now, wall = time.monotonic(), time.time_ns()

        def at(offset: float) -> int:
            """Seconds since the request began, as nanoseconds of the wall clock."""
            return wall - round((now - record.began - offset) * 1e9)

        caller = TraceContextTextMapPropagator().extract({"traceparent": record.traceparent}) if record.traceparent else None
        request = self._tracer.start_span(record.rule, caller, SpanKind.SERVER, _attributes(record), start_time=at(0))
        if record.outcome >= 500:
            request.set_status(Status(StatusCode.ERROR, record.error))
        inside = set_span_in_context(request)
        for name, start, end in _parts(record, now - record.began):
            self._tracer.start_span(name, inside, start_time=at(start)).end(at(end))
        request.end(wall)


def _session(url: str) -> requests.Session:
    """With the environment's proxies alone: to ask macOS for its own ends a process that was forked, as workers are."""
    session = requests.Session()
    session.trust_env = False
    if not urllib.request.proxy_bypass_environment(urlsplit(url).netloc):  # type: ignore[attr-defined]
        session.proxies = urllib.request.getproxies_environment()
    return session


def _attributes(record: AccessRecord) -> dict[str, str | int | float | list[str]]:
    method, _, route = record.rule.partition(" ")
    attributes: dict[str, str | int | float | list[str] | None] = {
        "http.request.method": method,
        "http.route": route,
        "http.response.status_code": record.outcome,
        "error.type": record.error,
        "gen_ai.request.id": record.id,
        "gen_ai.response.model": record.model,
        "gen_ai.usage.input_tokens": record.prompt_tokens,
        "gen_ai.usage.output_tokens": record.completion_tokens,
        "gen_ai.response.finish_reasons": record.finish_reasons or None,
        "gen_ai.latency.time_to_first_token": record.first_token,
    }
    return {name: value for name, value in attributes.items() if value is not None}


def _parts(record: AccessRecord, ended: float) -> list[tuple[str, float, float]]:
    """(name, begin, end) of what the model did, in seconds since the request came, as far as it got."""
    if record.queue_time is None or record.started is None:
        return []
    first = record.first_token if record.first_token is not None else ended
    admitted = first - record.prefill_time if record.prefill_time is not None else record.started
    parts = [("queue", max(0.0, admitted - record.queue_time), admitted), ("prefill", admitted, first)]
    if record.first_token is not None:
        parts.append(("decode", first, ended if record.decode_time is None else min(ended, first + record.decode_time)))
    return parts
