"""POST /v1/responses, GET and DELETE /v1/responses/{id}: OpenAI's Responses API, by way of a chat completion."""

from functools import partial
from typing import Any

import flask

from src.api.accept import accept
from src.api.generate import reply
from src.api.record import record
from src.api.response_events import ResponseRenderer
from src.api.response_store import Stored
from src.api.schema import ChatRequest, ResponsesRequest, parse
from src.api.service import json_response, service
from src.api.translated import named
from src.errors import InvalidValue, NotFound, UnsupportedField

blueprint = flask.Blueprint("responses", __name__)

# Fields of a chat by what they are called here.
_NAMES = {
    "messages": "input",
    "max_tokens": "max_output_tokens",
    "response_format": "text.format",
    "verbosity": "text.verbosity",
    "reasoning_effort": "reasoning.effort",
}


@blueprint.post("/v1/responses")
def create() -> flask.Response:
    request = accept(ResponsesRequest)
    store = service().responses
    history = _history(request.previous_response_id)
    keeps = store.keeps and request.store is not False
    items = [*history, *request.items()]
    owner = _owner()  # taken here: a stream ends after its request's context is gone

    def keep(response: dict[str, Any]) -> None:
        store.put(response["id"], Stored(owner=owner, response=response, items=[*items, *response["output"]]))

    with named(_NAMES):
        settings = service().settings
        chat = parse(ChatRequest, request.chat(history, settings), settings)
        return reply(chat, partial(ResponseRenderer, echo=_echo(request, keeps), keep=keep if keeps else None), "resp_")


@blueprint.get("/v1/responses/<id>")
def retrieve(id: str) -> flask.Response:
    stored = service().responses.get(id, _owner())
    if stored is None:
        raise _not_found(id)
    return json_response(stored.response)


@blueprint.delete("/v1/responses/<id>")
def delete(id: str) -> flask.Response:
    if not service().responses.remove(id, _owner()):
        raise _not_found(id)
    return json_response({"id": id, "object": "response", "deleted": True})


def _history(previous: str | None) -> list[dict[str, Any]]:
    """The items that an earlier response ended with."""
    if previous is None:
        return []
    store = service().responses
    if not store.keeps:
        raise UnsupportedField(
            "previous_response_id: this server keeps no responses (RESPONSE_STORE_SIZE=0). Send the whole conversation as input.",
            "previous_response_id",
        )
    stored = store.get(previous, _owner())
    if stored is None:
        raise InvalidValue(f"previous_response_id: there is no response {previous[:100]!r} here, or no longer.", "previous_response_id")
    return stored.items


def _owner() -> str:
    """The name of the API key that asks."""
    return record().key or ""


def _not_found(id: str) -> NotFound:
    why = "" if service().responses.keeps else " This server keeps none (RESPONSE_STORE_SIZE=0)."
    return NotFound(f"There is no response {id[:100]!r} here.{why}", "id")


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
        "temperature": 1.0 if request.temperature is None else request.temperature,
        "text": {"format": text.format.model_dump(by_alias=True, exclude_none=True) if text and text.format else {"type": "text"}},
        "tool_choice": choice if isinstance(choice, str) else choice.model_dump() if choice else "auto",
        "tools": [{"strict": None, "parameters": None, **tool.model_dump(exclude_none=True)} for tool in request.tools or []],
        "top_logprobs": request.top_logprobs or 0,
        "top_p": 1.0 if request.top_p is None else request.top_p,
        "truncation": "disabled",
    }
