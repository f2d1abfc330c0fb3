"""POST /v1/completions."""

import flask

from src.api.accept import accept
from src.api.generate import reply
from src.api.render import CompletionRenderer
from src.api.schema import CompletionRequest

blueprint = flask.Blueprint("completions", __name__)


@blueprint.post("/v1/completions")
def create() -> flask.Response:
    request = accept(CompletionRequest)
    return reply(request, CompletionRenderer, "cmpl-")
