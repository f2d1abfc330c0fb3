"""POST /v1/chat/completions, GET /v1/chat/completions/{id}."""

import flask

from src.api.accept import accept
from src.api.generate import reply, reply_again
from src.api.render import ChatRenderer
from src.api.schema import ChatRequest

blueprint = flask.Blueprint("chat", __name__)


@blueprint.post("/v1/chat/completions")
def create() -> flask.Response:
    request = accept(ChatRequest)
    return reply(request, ChatRenderer, "chatcmpl-")


@blueprint.get("/v1/chat/completions/<path:name>")
def again(name: str) -> flask.Response:
    return reply_again(name, ChatRenderer)
