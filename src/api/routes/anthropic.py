"""POST /v1/messages and /v1/messages/count_tokens: Anthropic's Messages API."""

from functools import partial

import flask

from src.api.body import accept
from src.api.gateway import gateway, json_response
from src.api.generation.query import tokens_of
from src.api.generation.reply import reply
from src.api.render.anthropic import MessageRenderer
from src.api.schema.anthropic import CountTokensRequest, MessagesRequest

blueprint = flask.Blueprint("messages", __name__)


@blueprint.post("/v1/messages")
def create() -> flask.Response:
    request = accept(MessagesRequest)
    settings = gateway().settings
    most = min(request.max_tokens, settings.max_completion_tokens or request.max_tokens)
    return reply(request.chat(settings), partial(MessageRenderer, max_tokens=most), "msg_")


@blueprint.post("/v1/messages/count_tokens")
def count_tokens() -> flask.Response:
    chat = accept(CountTokensRequest).chat(gateway().settings)
    return json_response({"input_tokens": len(tokens_of(chat.model, chat.prompt()).tokens)})
