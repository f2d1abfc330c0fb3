"""POST /v1/completions, GET /v1/completions/{id}."""

import flask

from src.api.body import accept
from src.api.generation.reply import reply, reply_again
from src.api.render.openai import CompletionRenderer
from src.api.schema.completion import CompletionRequest

blueprint = flask.Blueprint("completions", __name__)


@blueprint.post("/v1/completions")
def create() -> flask.Response:
    return reply(accept(CompletionRequest).completion(), CompletionRenderer, "cmpl-")


@blueprint.get("/v1/completions/<path:name>")
def again(name: str) -> flask.Response:
    return reply_again(name, CompletionRenderer)
