"""POST /v1/tokenize, /v1/detokenize, /v1/chat/template; the first two also where vLLM has them, with its fields and answers."""

import contextlib
from typing import Any

import flask

from src.api.accept import accept, check, read_body
from src.api.ask import ask
from src.api.record import record
from src.api.schema import ChatRequest, DetokenizeRequest, TokenizeChatRequest, TokenizeTextRequest
from src.api.service import json_response
from src.protocol import ChatPrompt, Detokenize, Detokenized, Message, TextPrompt, Tokenize, Tokenized

blueprint = flask.Blueprint("tokens", __name__)


@blueprint.post("/v1/tokenize")
@blueprint.post("/tokenize")
def tokenize() -> flask.Response:
    """Of a text or of a chat, however long."""
    body = read_body()
    request = check(TokenizeChatRequest, body) if "messages" in body else check(TokenizeTextRequest, body)
    prompt = chat_prompt(request) if isinstance(request, TokenizeChatRequest) else TextPrompt(text=request.prompt)
    found = tokens_of(request.model, prompt, add_bos=request.add_special_tokens is not False)
    answer = {"count": len(found.tokens), "max_model_len": found.context_length, "tokens": found.tokens}
    return json_response(answer | {"token_strs": found.names if request.return_token_strs else None})


@blueprint.post("/v1/detokenize")
@blueprint.post("/detokenize")
def detokenize() -> flask.Response:
    request = accept(DetokenizeRequest)
    found: Detokenized = _ask_once(request.model, Detokenize(tokens=request.tokens))
    return json_response({"prompt": found.text})


@blueprint.post("/v1/chat/template")
def template() -> flask.Response:
    """What a chat completion with this body would give the model to go on with."""
    request = accept(ChatRequest)
    found = tokens_of(request.model, chat_prompt(request))
    answer = {"prompt": found.text, "count": len(found.tokens), "max_model_len": found.context_length, "tokens": found.tokens}
    return json_response(answer)


def chat_prompt(request: ChatRequest) -> ChatPrompt:
    [prompt] = request.generate().prompts
    assert isinstance(prompt, ChatPrompt)
    return prompt


def tokens_of(model: str | None, prompt: ChatPrompt | TextPrompt, *, add_bos: bool = True) -> Tokenized:
    found: Tokenized = _ask_once(model, Tokenize(prompt=prompt, add_bos=add_bos))
    record().prompt_tokens = len(found.tokens)
    return found


def _ask_once(model: str | None, request: Message) -> Any:
    """The one message that answers a request."""
    _, events = ask(model, request)
    with contextlib.closing(events):
        return next(event for event in events if event is not None)
