"""POST /v1/chat/completions, GET /v1/chat/completions/{id}."""

import flask

from src.api.body import accept
from src.api.gateway import gateway
from src.api.generation.reply import reply, reply_again
from src.api.render.openai import ChatRenderer
from src.api.schema.chat import ChatRequest

blueprint = flask.Blueprint("chat", __name__)


@blueprint.post("/v1/chat/completions")
def create() -> flask.Response:
    chat = accept(ChatRequest).chat(gateway().settings)
    return reply(chat, ChatRenderer, "chatcmpl-")


@blueprint.get("/v1/chat/completions/<path:name>")
def again(name: str) -> flask.Response:
    return reply_again(name, ChatRenderer)
