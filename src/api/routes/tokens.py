"""POST /v1/tokenize, /v1/detokenize, /v1/chat/template, GET /v1/tokenizer_info; those that vLLM has also where it has them."""

from typing import Any

import flask

from src.api.access.scopes import sharer
from src.api.body import accept, check, read_body
from src.api.gateway import gateway, json_response
from src.api.generation.query import ask_once, tokens_of
from src.api.schema.chat import ChatRequest
from src.api.schema.tokens import DetokenizeRequest, TokenizeChatRequest, TokenizeTextRequest
from src.protocol import ChatPrompt, DescribeTokenizer, Detokenize, Detokenized, TextPrompt, Tokenized, TokenizerInfo

blueprint = flask.Blueprint("tokens", __name__)


@blueprint.post("/v1/tokenize")
@blueprint.post("/tokenize")
def tokenize() -> flask.Response:
    """Of a text or of a chat, however long."""
    body = read_body()
    request = check(TokenizeChatRequest, body) if "messages" in body else check(TokenizeTextRequest, body)
    prompt = _prompt(request) if isinstance(request, TokenizeChatRequest) else TextPrompt(text=request.prompt)
    names = bool(request.return_token_strs)
    tokenized = tokens_of(request.model, prompt, add_bos=request.add_special_tokens is not False, names=names)
    return json_response({**_counts(tokenized), "token_strs": tokenized.names if names else None})


@blueprint.post("/v1/detokenize")
@blueprint.post("/detokenize")
def detokenize() -> flask.Response:
    request = accept(DetokenizeRequest)
    detokenized: Detokenized = ask_once(request.model, Detokenize(tokens=request.tokens, key=sharer()))
    return json_response({"prompt": detokenized.text})


@blueprint.get("/v1/tokenizer_info")
@blueprint.get("/tokenizer_info")
def tokenizer_info() -> flask.Response:
    """What the tokenizer is and has, of the default model or of `?model=`."""
    info: TokenizerInfo = ask_once(flask.request.args.get("model"), DescribeTokenizer(key=sharer()))
    return json_response(
        {
            "tokenizer_class": info.kind_of,
            "bos_token": info.bos_text or None,
            "eos_token": info.eos_text or None,
            "pad_token": None,
            "chat_template": info.chat_template,
            "vocab_size": info.vocab_size,
            "model_max_length": info.context_length,
        }
    )


@blueprint.post("/v1/chat/template")
def template() -> flask.Response:
    """What a chat completion with this body would give the model to go on with."""
    request = accept(ChatRequest)
    tokenized = tokens_of(request.model, _prompt(request))
    return json_response({"prompt": tokenized.text, **_counts(tokenized)})


def _prompt(request: ChatRequest) -> ChatPrompt:
    return request.chat(gateway().settings).prompt()


def _counts(tokenized: Tokenized) -> dict[str, Any]:
    return {"count": len(tokenized.tokens), "max_model_len": tokenized.context_length, "tokens": tokenized.tokens}
