"""One trace a request for text, sent by OTLP over HTTP: request, and in it queue, prefill, decode. Never what was asked or answered.

Spans are made when a request has ended, from what its record knows: nothing is carried along while it runs. To be made in a
worker, after gevent has patched it: the SDK sends from a thread, which then is a greenlet.
"""

import time

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from src.api.record import Record

SEND_SECONDS = 3.0  # for a batch; what a collector does not take by then is lost, and the stop of a worker waits no longer


class Tracer:
    """The names of attributes are OpenTelemetry's for HTTP and for generative AI. OTEL_SERVICE_NAME, OTEL_TRACES_SAMPLER,
    OTEL_EXPORTER_OTLP_HEADERS and their like are read by the SDK itself."""

    def __init__(self, endpoint: str) -> None:
        resource = Resource.create({"service.name": "llm-inference-service"}).merge(OTELResourceDetector().detect())
        provider = TracerProvider(resource=resource)
        exporter = OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces", timeout=SEND_SECONDS)
        provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = provider.get_tracer("src.api")

    def request_ended(self, of: Record) -> None:
        if not of.rule.startswith("POST /v1/"):
            return
        now, wall = time.monotonic(), time.time_ns()

        def at(offset: float) -> int:
            """Seconds since the request began, as nanoseconds of the wall clock."""
            return wall - round((now - of.began - offset) * 1e9)

        caller = TraceContextTextMapPropagator().extract({"traceparent": of.traceparent}) if of.traceparent else None
        request = self._tracer.start_span(of.rule, caller, SpanKind.SERVER, _attributes(of), start_time=at(0))
        if of.outcome >= 500:
            request.set_status(Status(StatusCode.ERROR, of.error))
        inside = set_span_in_context(request)
        for name, start, end in _parts(of, now - of.began):
            self._tracer.start_span(name, inside, start_time=at(start)).end(at(end))
        request.end(wall)


def _attributes(of: Record) -> dict[str, str | int | float | list[str]]:
    method, _, route = of.rule.partition(" ")
    found: dict[str, str | int | float | list[str] | None] = {
        "http.request.method": method,
        "http.route": route,
        "http.response.status_code": of.outcome,
        "error.type": of.error,
        "gen_ai.request.id": of.id,
        "gen_ai.response.model": of.model,
        "gen_ai.usage.input_tokens": of.prompt_tokens,
        "gen_ai.usage.output_tokens": of.completion_tokens,
        "gen_ai.response.finish_reasons": of.endings or None,
        "gen_ai.latency.time_to_first_token": of.first_token,
    }
    return {name: value for name, value in found.items() if value is not None}


def _parts(of: Record, ended: float) -> list[tuple[str, float, float]]:
    """(name, begin, end) of what the model did, in seconds since the request came, as far as it got."""
    if of.queue_time is None or of.started is None:
        return []
    first = of.first_token if of.first_token is not None else ended
    admitted = first - of.prefill_time if of.prefill_time is not None else of.started
    parts = [("queue", max(0.0, admitted - of.queue_time), admitted), ("prefill", admitted, first)]
    if of.first_token is not None:
        parts.append(("decode", first, ended if of.decode_time is None else min(ended, first + of.decode_time)))
    return parts
