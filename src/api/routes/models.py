"""GET /v1/models, /v1/models/{id} and its plan; POST /v1/models/load, unload, switch, download."""

import contextlib
import itertools
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import TypeVar

import flask

from src.api import failures
from src.api.access.audit import note
from src.api.access.scopes import needs
from src.api.access.visibility import find, require_visible, visible
from src.api.body import accept
from src.api.gateway import client_socket, event_stream, gateway, json_response
from src.api.render import models as public
from src.api.render.base import DONE, data_frame
from src.api.schema.models import DownloadRequest, LoadRequest, SwitchRequest, UnloadRequest
from src.protocol import Download

blueprint = flask.Blueprint("models", __name__)

DOWNLOAD_SECONDS = 24 * 3600  # a download is no request for text: REQUEST_TIMEOUT does not end it
Step = TypeVar("Step")


@blueprint.get("/v1/models")
def list_all() -> flask.Response:
    """As Anthropic has it for its clients, by their header `anthropic-version`."""
    models = visible(gateway().manager.status().models)
    if not _as_anthropic():
        return _varied({"object": "list", "data": [public.model(model) for model in models]})
    ids = [model.name for model in models]
    ends = {"has_more": False, "first_id": ids[0] if ids else None, "last_id": ids[-1] if ids else None}
    return _varied({"data": [public.anthropic_model(model) for model in models], **ends})


@blueprint.get("/v1/models/<path:name>")
def retrieve(name: str) -> flask.Response:
    found = find(name, gateway().manager.status().models)
    return _varied(public.anthropic_model(found) if _as_anthropic() else public.model(found))


@blueprint.get("/v1/models/<path:name>/plan")
@needs("monitor")
def plan(name: str) -> flask.Response:
    """What loading the model here would take."""
    require_visible(name)
    return json_response(public.plan(gateway().manager.plan(name, gateway().deadline())))


@blueprint.post("/v1/models/load")
@needs("admin", without_token=True)
def load() -> flask.Response:
    """Answers once the model is loaded, or with the reason why it is not; with `stream`, tells on the way how far it is."""
    request = accept(LoadRequest)
    note(model=request.model_name)
    if not request.stream:
        gateway().manager.load(request.model_name, gateway().deadline(), client_socket())
        return retrieve(request.model_name)
    steps = gateway().manager.load_progress(request.model_name, gateway().deadline(), client_socket())
    return _stream(steps, public.load_progress)


@blueprint.post("/v1/models/unload")
@needs("admin", without_token=True)
def unload() -> flask.Response:
    """Answers once the model's memory is free; its running requests end first."""
    request = accept(UnloadRequest)
    note(model=request.model_name)
    gateway().manager.unload(request.model_name, gateway().deadline(), client_socket())
    return retrieve(request.model_name)


@blueprint.post("/v1/models/switch")
@needs("admin", without_token=True)
def switch() -> flask.Response:
    """Answers once the model serves in the place of the one before, which ends after its running requests."""
    request = accept(SwitchRequest)
    note(model=request.model_name)
    gateway().manager.switch(request.model_name, request.before, gateway().deadline(), client_socket())
    return retrieve(request.model_name)


@blueprint.post("/v1/models/download")
@needs("admin")
def download() -> flask.Response:
    """Answers once the model is in the catalog; with `stream`, tells on the way how far it is. It goes on if the client leaves."""
    request = accept(DownloadRequest)
    note(repo=request.repo, source=request.source)
    order = Download(source=request.source, repo=request.repo, name=request.name, revision=request.revision, include=request.include)
    steps = gateway().manager.download(order, time.monotonic() + DOWNLOAD_SECONDS, client_socket())
    if request.stream:
        return _stream(steps, public.download)
    with contextlib.closing(steps):
        *_, last = (step for step in steps if step)
    return json_response(_find(last.name))


@blueprint.get("/v1/models/download")
@needs("admin")
def downloads() -> flask.Response:
    """Downloads that run, and those that ended since the server was started."""
    running = gateway().manager.downloads(gateway().deadline())
    return json_response({"object": "list", "data": [public.download(progress) for progress in running]})


def _as_anthropic() -> bool:
    return "anthropic-version" in flask.request.headers


def _varied(answer: public.JSON) -> flask.Response:
    response = json_response(answer)
    response.vary.add("anthropic-version")
    return response


def _find(name: str) -> public.JSON:
    return public.model(find(name, gateway().manager.status().models))


def _stream(steps: Generator[Step | None, None, None], render: Callable[[Step], public.JSON]) -> flask.Response:
    """Each step as an event, then [DONE]. A failure before the first is a plain error."""
    first = next(steps)
    return event_stream(failures.events(_events(itertools.chain([first], steps), render)), steps.close)


def _events(steps: Iterable[Step | None], render: Callable[[Step], public.JSON]) -> Iterator[bytes]:
    for step in steps:
        yield data_frame(render(step)) if step else b": waiting\n\n"
    yield DONE
