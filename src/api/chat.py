"""POST /v1/chat/completions."""

import flask

from src.api.accept import accept
from src.api.generate import reply
from src.api.render import ChatRenderer
from src.api.schema import ChatRequest

blueprint = flask.Blueprint("chat", __name__)


@blueprint.post("/v1/chat/completions")
def create() -> flask.Response:
    request = accept(ChatRequest)
    return reply(request, ChatRenderer, "chatcmpl-")
