"""POST /v1/messages and /v1/messages/count_tokens: Anthropic's Messages API, by way of a chat completion."""

from functools import partial

import flask

from src.api.accept import accept
from src.api.generate import reply
from src.api.message_events import MessageRenderer
from src.api.schema import ChatRequest, CountTokensRequest, MessagesRequest, parse
from src.api.service import json_response, service
from src.api.tokens import chat_prompt, tokens_of
from src.api.translated import named

# Fields of a chat by what they are called here.
_NAMES = {
    "stop": "stop_sequences",
    "parallel_tool_calls": "tool_choice.disable_parallel_tool_use",
    "response_format": "output_config.format",
    "reasoning_effort": "output_config.effort",
    "chat_template_kwargs": "thinking",
    "continue_final_message": "messages",
}
blueprint = flask.Blueprint("messages", __name__)


@blueprint.post("/v1/messages")
def create() -> flask.Response:
    request = accept(MessagesRequest)
    with named(_NAMES):
        chat = parse(ChatRequest, request.chat(), service().settings)
        return reply(chat, partial(MessageRenderer, max_tokens=request.max_tokens), "msg_")


@blueprint.post("/v1/messages/count_tokens")
def count_tokens() -> flask.Response:
    request = accept(CountTokensRequest)
    with named(_NAMES):
        found = tokens_of(request.model, chat_prompt(parse(ChatRequest, request.chat(), service().settings)))
    return json_response({"input_tokens": len(found.tokens)})
