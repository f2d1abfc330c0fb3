"""POST /v1/chat/completions."""

import flask

from src.api.body import read_json
from src.api.generate import reply
from src.api.render import ChatRenderer
from src.api.schema import ChatRequest, parse
from src.api.service import service

blueprint = flask.Blueprint("chat", __name__)


@blueprint.post("/v1/chat/completions")
def create() -> flask.Response:
    request = parse(ChatRequest, read_json(service().settings.body_timeout))
    return reply(request, ChatRenderer, "chatcmpl")
