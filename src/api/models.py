"""GET /v1/models, /v1/models/{id} and its plan; POST /v1/models/load, unload, switch, download."""

import contextlib
import itertools
import time
from collections.abc import Generator, Iterable, Iterator
from typing import Any

import flask
import msgspec

from src.api import failures
from src.api.accept import accept
from src.api.access import find, needs, see, visible
from src.api.audit import note
from src.api.schema import DownloadRequest, LoadRequest, SwitchRequest, UnloadRequest
from src.api.service import client_socket, json_response, service
from src.protocol import Download, DownloadProgress, LoadProgress, Message, ModelState

blueprint = flask.Blueprint("models", __name__)

DOWNLOAD_SECONDS = 24 * 3600  # a download is no request for text: REQUEST_TIMEOUT does not end it
_HIDDEN = (
    "name",
    "modified",
    "stats",
    "device",
    "engine_version",
    "load_seconds",
    "restarts",
)  # under other names, or in the system's status


@blueprint.get("/v1/models")
def list_all() -> flask.Response:
    status = service().manager.status()
    return json_response({"object": "list", "data": [_model(model) for model in visible(status.models)]})


@blueprint.get("/v1/models/<path:name>")
def retrieve(name: str) -> flask.Response:
    return json_response(_find(name))


@blueprint.get("/v1/models/<path:name>/plan")
@needs("monitor")
def plan(name: str) -> flask.Response:
    """What loading the model here would take."""
    see(name)
    found = service().manager.plan(name, service().deadline())
    return json_response(_fields(found))


@blueprint.post("/v1/models/load")
@needs("admin")
def load() -> flask.Response:
    """Answers once the model is loaded, or with the reason why it is not; with `stream`, tells on the way how far it is."""
    request = accept(LoadRequest)
    note(model=request.model_name)
    if not request.stream:
        service().manager.load(request.model_name, service().deadline(), client_socket())
        return retrieve(request.model_name)
    return _stream(service().manager.load_progress(request.model_name, service().deadline(), client_socket()))


@blueprint.post("/v1/models/unload")
@needs("admin")
def unload() -> flask.Response:
    """Answers once the model's memory is free; its running requests end first."""
    request = accept(UnloadRequest)
    note(model=request.model_name)
    service().manager.unload(request.model_name, service().deadline(), client_socket())
    return retrieve(request.model_name)


@blueprint.post("/v1/models/switch")
@needs("admin")
def switch() -> flask.Response:
    """Answers once the model serves in the place of the one before, which ends after its running requests."""
    request = accept(SwitchRequest)
    note(model=request.model_name)
    service().manager.switch(request.model_name, request.before, service().deadline(), client_socket())
    return retrieve(request.model_name)


@blueprint.post("/v1/models/download")
@needs("admin")
def download() -> flask.Response:
    """Answers once the model is in the catalog; with `stream`, tells on the way how far it is. It goes on if the client leaves."""
    request = accept(DownloadRequest)
    note(repo=request.repo, source=request.source)
    asked = Download(source=request.source, repo=request.repo, name=request.name, revision=request.revision, include=request.include)
    steps = service().manager.download(asked, time.monotonic() + DOWNLOAD_SECONDS, client_socket())
    if request.stream:
        return _stream(steps)
    with contextlib.closing(steps):
        *_, last = (step for step in steps if step)
    return json_response(_find(last.name))


@blueprint.get("/v1/models/download")
@needs("admin")
def downloads() -> flask.Response:
    """Downloads that run, and those that ended since the server was started."""
    found = service().manager.downloads(service().deadline())
    return json_response({"object": "list", "data": [_fields(state) for state in found]})


def _find(name: str) -> dict[str, Any]:
    return _model(find(name, service().manager.status().models))


def _stream(steps: Generator[LoadProgress | DownloadProgress | None, None, None]) -> flask.Response:
    """Each step as an event, then [DONE]. A failure before the first is a plain error."""
    first = next(steps)
    response = flask.Response(failures.events(_events(itertools.chain([first], steps))), mimetype="text/event-stream")
    response.call_on_close(steps.close)
    response.headers["Cache-Control"] = "no-cache"
    response.headers["X-Accel-Buffering"] = "no"  # nginx would collect the events otherwise
    return response


def _events(steps: Iterable[LoadProgress | DownloadProgress | None]) -> Iterator[bytes]:
    for step in steps:
        yield b"data: " + msgspec.json.encode(_fields(step)) + b"\n\n" if step else b": waiting\n\n"
    yield b"data: [DONE]\n\n"


def _fields(message: Message) -> dict[str, Any]:
    return {field: getattr(message, field) for field in message.__struct_fields__}


def _model(model: ModelState) -> dict[str, Any]:
    """OpenAI's fields, then ours."""
    ours = {field: getattr(model, field) for field in model.__struct_fields__ if field not in _HIDDEN}
    if model.progress:
        ours["progress"] = {
            "stage": model.progress.stage,
            "bytes_read": model.progress.bytes_read,
            "bytes_total": model.progress.bytes_total,
        }
    return {"id": model.name, "object": "model", "created": model.modified, "owned_by": "local", **ours}
