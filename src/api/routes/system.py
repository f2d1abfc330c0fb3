"""GET /health and GET /v1/system/status."""

import platform
from importlib.metadata import version
from typing import Any

import flask

from src.api.access import asker, needs, open_to_all
from src.api.service import json_response, service
from src.errors import ServiceError
from src.protocol import Message, ServiceStatus

blueprint = flask.Blueprint("system", __name__)


@blueprint.get("/health")
@open_to_all
def health() -> flask.Response:
    """200 when a model is ready or would be loaded on demand, else 503 with the reason."""
    try:
        status = service().manager.status()
    except ServiceError as error:
        return _unhealthy(error.message)
    ready = [model.name for model in status.models if model.state == "ready"]
    if ready:
        return _answer(status="ok", models_ready=ready)
    if not status.models:
        return _unhealthy(f"There is no model in {service().settings.models_dir}/.")
    if loading := [model.name for model in status.models if model.state in ("loading", "unloading")]:
        return _unhealthy(f"The model {loading[0]} is being loaded.", "loading")
    if status.load_on_demand and any(model.state == "available" for model in status.models):
        return _answer(status="ok", models_ready=[])
    failed = next((model for model in status.models if model.state == "failed"), None)
    return _unhealthy(f"The model {failed.name} failed: {failed.reason}" if failed else "No model is loaded, and LOAD_ON_DEMAND is off.")


def _answer(status: str, **more: object) -> flask.Response:
    """Which models there are is not for everybody where there are keys."""
    key = asker()
    knows = not service().keyring.configured if key is None else not key.models
    return json_response({"status": status, **(more if knows else {})})


def _unhealthy(reason: str, status: str = "unavailable") -> flask.Response:
    response = _answer(status=status, reason=reason)
    response.status_code = 503
    response.headers["Retry-After"] = "2"
    return response


@blueprint.get("/v1/system/status")
@needs("monitor")
def system_status() -> flask.Response:
    status = service().manager.status(detail=True)
    return json_response(
        {
            "uptime_seconds": status.uptime_seconds,
            "versions": {"python": platform.python_version(), **{name: version(name) for name in ("flask", "gunicorn", "gevent")}},
            "platform": platform.platform(),
            "engines": {name: reason or "available" for name, reason in status.engines.items()},
            "default_model": status.default_model,
            "models": [_plain(model) for model in status.models],
            "requests": _totals(status),
            "system": {
                "cpu_percent": status.cpu_percent,
                "memory_used_bytes": status.memory_used_bytes,
                "memory_total_bytes": status.memory_total_bytes,
            },
            "processes": [_plain(use) for use in status.processes],
        }
    )


def _plain(message: Message) -> dict[str, Any]:
    """The message's fields without the protocol's tags."""
    fields = {name: getattr(message, name) for name in message.__struct_fields__}
    return {name: _plain(value) if isinstance(value, Message) else value for name, value in fields.items()}


def _totals(status: ServiceStatus) -> dict[str, float]:
    stats = [model.stats for model in status.models if model.stats]
    return {
        "running": sum(of.running for of in stats),
        "waiting": sum(of.waiting for of in stats),
        "tokens_per_second": round(sum(of.tokens_per_second for of in stats), 1),
        "kv_used_tokens": sum(of.kv_used for of in stats),
        "kv_total_tokens": sum(of.kv_total for of in stats),
    }
