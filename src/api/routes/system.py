"""GET /health and GET /v1/system/status."""

import platform
from importlib.metadata import version

import flask

from src.api.access.keyring import keyring
from src.api.access.scopes import asker, needs, open_to_all
from src.api.access.visibility import sees
from src.api.gateway import gateway, json_response
from src.api.render import models as public
from src.errors import ServiceError
from src.protocol import ModelState, ServiceStatus
from src.public_text import without_paths

blueprint = flask.Blueprint("system", __name__)


@blueprint.get("/health")
@open_to_all
def health() -> flask.Response:
    """200 when a model is ready or would be loaded on demand, else 503 with the reason."""
    try:
        status = gateway().manager.status()
    except ServiceError as error:
        return _unhealthy(error.message)
    ready = [model.name for model in status.models if model.state == "ready"]
    if ready:
        unreadable = {"unreadable": _told(status)} if status.unreadable else {}
        return _answer(status="ok", models_ready=ready, **unreadable)
    if not status.models:
        return _unhealthy(
            " ".join([f"There is no model in {gateway().settings.shown_models_dir}.", *(f"{each}." for each in status.unreadable)])
        )
    if loading := [model.name for model in status.models if model.state in ("loading", "unloading")]:
        return _unhealthy(f"The model {loading[0]} is being loaded.", "loading")
    if status.load_on_demand and any(model.state == "available" for model in status.models):
        return _answer(status="ok", models_ready=[])
    failed = next((model for model in status.models if model.state == "failed"), None)
    return _unhealthy(f"The model {failed.name} failed: {failed.reason}" if failed else "No model is loaded, and LOAD_ON_DEMAND is off.")


def _answer(status: str, **more: object) -> flask.Response:
    """Which models there are is not for everybody where there are keys."""
    return json_response({"status": status, **(more if _may_know_all_models() else {})})


def _told(status: ServiceStatus) -> list[str]:
    return [without_paths(each) for each in status.unreadable]


def _may_know_all_models() -> bool:
    key = asker()
    return not keyring().configured if key is None else not key.models


def _unhealthy(reason: str, status: str = "unavailable") -> flask.Response:
    response = _answer(status=status, reason=without_paths(reason))
    response.status_code = 503
    response.headers["Retry-After"] = "2"
    return response


@blueprint.get("/v1/system/status")
@needs("monitor")
def system_status() -> flask.Response:
    """A key with a list of models sees these alone, and the processes and requests of these."""
    status = gateway().manager.status(detail=True)
    models = [model for model in status.models if sees(model)]
    names = {model.name for model in models}
    return json_response(
        {
            "uptime_seconds": status.uptime_seconds,
            "versions": {"python": platform.python_version(), **{name: version(name) for name in ("flask", "gunicorn", "gevent")}},
            "platform": platform.platform(),
            "engines": {name: reason or "available" for name, reason in public.reasons(status.engines).items()},
            "default_model": status.default_model if status.default_model in names else None,
            "models": [public.model_status(model) for model in models],
            "unreadable": _told(status) if _may_know_all_models() else [],
            "requests": _totals(models),
            "system": {
                "cpu_percent": status.cpu_percent,
                "memory_used_bytes": status.memory_used_bytes,
                "memory_total_bytes": status.memory_total_bytes,
            },
            "processes": [public.process(use) for use in status.processes if use.model is None or use.model in names],
        }
    )


def _totals(models: list[ModelState]) -> dict[str, float]:
    stats = [model.stats for model in models if model.stats]
    return {
        "running": sum(each.engine.running for each in stats),
        "waiting": sum(each.engine.waiting for each in stats),
        "tokens_per_second": round(sum(each.tokens_per_second for each in stats), 1),
        "kv_used_tokens": sum(each.engine.kv_used for each in stats),
        "kv_total_tokens": sum(each.engine.kv_total for each in stats),
    }
