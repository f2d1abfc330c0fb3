"""POST /v1/responses and /v1/responses/input_tokens, GET and DELETE /v1/responses/{id}: OpenAI's Responses API."""

from functools import partial
from typing import Any

import flask

from src.api.access.scopes import owner
from src.api.body import accept
from src.api.gateway import gateway, json_response
from src.api.generation.query import tokens_of
from src.api.generation.reply import reply
from src.api.generation.response_store import Stored, response_store
from src.api.render.responses import ResponseRenderer
from src.api.schema import Strict
from src.api.schema.generation import cooled
from src.api.schema.response_items import RESEND, Item, items_of, resolved, seen
from src.api.schema.response_tools import called_as
from src.api.schema.responses import InputTokensRequest, ResponsesRequest
from src.errors import FIELD, InvalidValue, NotFound, UnsupportedField

blueprint = flask.Blueprint("responses", __name__)


@blueprint.post("/v1/responses")
def create() -> flask.Response:
    request = accept(ResponsesRequest)
    store = response_store()
    history, items = _history(request.previous_response_id), _items(request)
    keeps = store.keeps and request.store is not False
    client, settings = owner(), gateway().settings  # taken here: a stream ends after its request's context is gone

    def keep(response: dict[str, Any]) -> None:
        output = items_of(response["output"], settings)
        store.put(response["id"], client, Stored(response=response, items=[*history, *seen(items), *seen(output)]))

    chat = request.chat(settings, history, items)
    renderer = partial(ResponseRenderer, echo=_echo(request, keeps), called_as=called_as(request.tools), keep=keep if keeps else None)
    return reply(chat, renderer, "resp_")


@blueprint.post("/v1/responses/input_tokens")
def input_tokens() -> flask.Response:
    """How many tokens the prompt of a response would have."""
    request = accept(InputTokensRequest)
    chat = request.chat(gateway().settings, _history(request.previous_response_id), _items(request))
    return json_response({"object": "response.input_tokens", "input_tokens": len(tokens_of(chat.model, chat.prompt()).tokens)})


@blueprint.get("/v1/responses/<id>")
def retrieve(id: str) -> flask.Response:
    stored = response_store().get(id, owner())
    if stored is None:
        raise _not_found(id)
    return json_response(stored.response)


@blueprint.delete("/v1/responses/<id>")
def delete(id: str) -> flask.Response:
    if not response_store().remove(id, owner()):
        raise _not_found(id)
    return json_response({"id": id, "object": "response", "deleted": True})


def _history(previous: str | None) -> list[dict[str, Any]]:
    """The items that an earlier response ended with."""
    if previous is None:
        return []
    store = response_store()
    if not store.keeps:
        raise UnsupportedField(
            f"{FIELD}: this server keeps no responses (RESPONSE_STORE_SIZE=0). {RESEND}",
            "previous_response_id",
        )
    stored = store.get(previous, owner())
    if stored is None:
        reason = f"there is no response {previous[:100]!r}, or it is no longer stored. {RESEND}"
        raise InvalidValue(f"{FIELD}: {reason}", "previous_response_id")
    return stored.items


def _items(request: ResponsesRequest) -> list[Item]:
    """What is said in this request, with the items that it only refers to."""
    store, client = response_store(), owner()
    return resolved(request.items(), lambda id: store.item(id, client), gateway().settings)


def _not_found(id: str) -> NotFound:
    why = "" if response_store().keeps else " This server keeps no responses (RESPONSE_STORE_SIZE=0)."
    return NotFound(f"There is no response {id[:100]!r}.{why}", "id")


def _echo(request: ResponsesRequest, kept: bool) -> dict[str, Any]:
    """What of the request a response repeats, with OpenAI's defaults."""
    text, reasoning = request.text, request.reasoning
    choice = request.tool_choice
    return {
        "background": False,
        "instructions": request.instructions,
        "max_output_tokens": request.max_output_tokens,
        "max_tool_calls": request.max_tool_calls,
        "metadata": request.metadata or {},
        "parallel_tool_calls": request.parallel_tool_calls is not False,
        "previous_response_id": request.previous_response_id,
        "reasoning": {"effort": reasoning.effort if reasoning else None, "summary": None},
        "store": kept,
        "temperature": 1.0 if request.temperature is None else cooled(request.temperature),
        "text": {"format": text.format.model_dump(by_alias=True, exclude_none=True) if text and text.format else {"type": "text"}},
        "tool_choice": choice if isinstance(choice, str) else choice.model_dump() if choice else "auto",
        "tools": [_tool(tool) for tool in request.tools or []],
        "top_logprobs": request.top_logprobs or 0,
        "top_p": 1.0 if request.top_p is None else request.top_p,
        "truncation": "disabled",
    }


def _tool(tool: Strict) -> dict[str, Any]:
    written = tool.model_dump(by_alias=True, exclude_none=True)
    return {"strict": None, "parameters": None, **written} if written["type"] == "function" else written
