"""POST /v1/completions, GET /v1/completions/{id}."""

import flask

from src.api.accept import accept
from src.api.generate import reply, reply_again
from src.api.render import CompletionRenderer
from src.api.schema import CompletionRequest

blueprint = flask.Blueprint("completions", __name__)


@blueprint.post("/v1/completions")
def create() -> flask.Response:
    request = accept(CompletionRequest)
    return reply(request, CompletionRenderer, "cmpl-")


@blueprint.get("/v1/completions/<path:name>")
def again(name: str) -> flask.Response:
    return reply_again(name, CompletionRenderer)
