"""POST /v1/completions, GET /v1/completions/{id}."""

import flask

from src.api.body import read_json
from src.api.generate import reply, reply_again
from src.api.render import CompletionRenderer
from src.api.schema import CompletionRequest, parse
from src.api.service import service

blueprint = flask.Blueprint("completions", __name__)


@blueprint.post("/v1/completions")
def create() -> flask.Response:
    request = parse(CompletionRequest, read_json(service().settings.body_timeout))
    return reply(request, CompletionRenderer, "cmpl")


@blueprint.get("/v1/completions/<path:name>")
def again(name: str) -> flask.Response:
    return reply_again(name, CompletionRenderer)
