"""GET /openapi.json: every route of this server, made from the very schemas that check requests."""

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import flask
from pydantic.json_schema import models_json_schema

from src.api import answers
from src.api import schema as bodies
from src.api.answers import Schema
from src.api.schema import Strict, with_settings
from src.api.service import Service, json_response

blueprint = flask.Blueprint("openapi", __name__)

REF = "#/components/schemas/{model}"
ALWAYS = (401, 403, 500, 503)
OF_A_BODY = (400, 408, 413, 415)
OF_A_MODEL = (404, 422, 429, 504)  # of a request that a runner answers
OF_AN_ANSWER = (400, 404, 504)  # that is kept
JSON, EVENTS = "application/json", "text/event-stream"


class Operation(NamedTuple):
    answer: Schema
    body: tuple[type[Strict], ...] = ()  # any of these
    errors: tuple[int, ...] = ()  # beside those of every route and of every body
    streams: bool = False
    content_type: str = JSON
    unavailable: Schema | None = None  # what a 503 has in place of an error


OPERATIONS: dict[str, Operation] = {
    "POST /v1/chat/completions": Operation(answers.CHAT, (bodies.ChatRequest,), OF_A_MODEL, streams=True),
    "POST /v1/completions": Operation(answers.COMPLETION, (bodies.CompletionRequest,), OF_A_MODEL, streams=True),
    "GET /v1/chat/completions/{name}": Operation(answers.CHAT, errors=OF_AN_ANSWER, streams=True),
    "GET /v1/completions/{name}": Operation(answers.COMPLETION, errors=OF_AN_ANSWER, streams=True),
    "POST /v1/responses": Operation(answers.RESPONSE, (bodies.ResponsesRequest,), OF_A_MODEL, streams=True),
    "GET /v1/responses/{id}": Operation(answers.RESPONSE, errors=(404,)),
    "DELETE /v1/responses/{id}": Operation(answers.DELETED, errors=(404,)),
    "POST /v1/messages": Operation(answers.MESSAGE, (bodies.MessagesRequest,), OF_A_MODEL, streams=True),
    "POST /v1/messages/count_tokens": Operation(answers.COUNTED, (bodies.CountTokensRequest,), OF_A_MODEL),
    "POST /v1/embeddings": Operation(answers.EMBEDDINGS, (bodies.EmbeddingRequest,), OF_A_MODEL),
    "POST /v1/tokenize": Operation(answers.TOKENIZED, (bodies.TokenizeChatRequest, bodies.TokenizeTextRequest), OF_A_MODEL),
    "POST /tokenize": Operation(answers.TOKENIZED, (bodies.TokenizeChatRequest, bodies.TokenizeTextRequest), OF_A_MODEL),
    "POST /v1/detokenize": Operation(answers.DETOKENIZED, (bodies.DetokenizeRequest,), OF_A_MODEL),
    "POST /detokenize": Operation(answers.DETOKENIZED, (bodies.DetokenizeRequest,), OF_A_MODEL),
    "POST /v1/chat/template": Operation(answers.TEMPLATE, (bodies.ChatRequest,), OF_A_MODEL),
    "GET /v1/models": Operation(answers.MODELS),
    "GET /v1/models/{name}": Operation(answers.MODEL, errors=(404,)),
    "GET /v1/models/{name}/plan": Operation(answers.PLAN, errors=(404,)),
    "POST /v1/models/load": Operation(answers.MODEL, (bodies.LoadRequest,), (404, 504), streams=True),
    "POST /v1/models/unload": Operation(answers.MODEL, (bodies.UnloadRequest,), (404, 504)),
    "POST /v1/models/switch": Operation(answers.MODEL, (bodies.SwitchRequest,), (404, 504)),
    "POST /v1/models/download": Operation(answers.MODEL, (bodies.DownloadRequest,), (404, 502, 504), streams=True),
    "GET /v1/models/download": Operation(answers.DOWNLOADS),
    "GET /v1/admin/keys": Operation(answers.KEYS, errors=(400,)),
    "POST /v1/admin/keys": Operation(answers.NEW_KEY, (bodies.KeyRequest,)),
    "POST /v1/admin/keys/{name}/rotate": Operation(answers.NEW_KEY, errors=(400, 404)),
    "DELETE /v1/admin/keys/{name}": Operation(answers.REVOKED, errors=(400, 404)),
    "GET /v1/admin/log-level": Operation(answers.LOG_LEVEL),
    "POST /v1/admin/log-level": Operation(answers.LOG_LEVEL, (bodies.LogLevelRequest,)),
    "GET /health": Operation(answers.HEALTHY, unavailable=answers.UNHEALTHY),
    "GET /v1/system/status": Operation(answers.STATUS),
    "GET /metrics": Operation(answers.TEXT, content_type="text/plain"),
    "GET /openapi.json": Operation(answers.ITSELF),
}


@blueprint.get("/openapi.json")
def document() -> flask.Response:
    """This document."""
    return json_response(describe(flask.current_app))


def describe(app: flask.Flask) -> dict[str, Any]:
    """The routes that this app has. A route without an entry above is a KeyError."""
    kinds = {kind for operation in OPERATIONS.values() for kind in operation.body}
    ordered = sorted(kinds, key=lambda kind: kind.__name__)
    _, schemas = models_json_schema([(kind, "validation") for kind in ordered], ref_template=REF)
    paths: dict[str, dict[str, Any]] = {}
    for path, method, summary in sorted(_routes(app)):
        paths.setdefault(path, {})[method.lower()] = _operation(OPERATIONS[f"{method} {path}"], path, summary)
    service: Service = app.extensions["service"]
    components = {**with_settings(schemas["$defs"], service.settings), "Error": answers.ERROR, "AnthropicError": answers.ANTHROPIC_ERROR}
    return {
        "openapi": "3.1.0",
        "info": {"title": "LLM inference service", "version": "1", "description": "docs/API.md says more of every field."},
        "paths": paths,
        "components": {"schemas": components},
    }


def _routes(app: flask.Flask) -> Iterator[tuple[str, str, str]]:
    """(path, method, what it does)"""
    for rule in app.url_map.iter_rules():
        text = app.view_functions[rule.endpoint].__doc__ or rule.endpoint.partition(".")[0]
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}:
            yield re.sub(r"<(?:path:)?(\w+)>", r"{\1}", rule.rule), method, text.partition("\n")[0]


def _operation(operation: Operation, path: str, summary: str) -> dict[str, Any]:
    found: dict[str, Any] = {"summary": summary, "responses": _responses(operation, path)}
    if names := re.findall(r"{(\w+)}", path):
        found["parameters"] = [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}} for name in names
        ]
    if operation.body:
        refs = [{"$ref": REF.format(model=kind.__name__)} for kind in operation.body]
        found["requestBody"] = {"required": True, "content": {JSON: {"schema": refs[0] if len(refs) == 1 else {"anyOf": refs}}}}
    return found


def _responses(operation: Operation, path: str) -> dict[str, Any]:
    content: dict[str, Any] = {operation.content_type: {"schema": operation.answer}}
    if operation.streams:
        content[EVENTS] = {"schema": answers.EVENT}
    error = REF.format(model="AnthropicError" if path.startswith("/v1/messages") else "Error")
    statuses = sorted({*ALWAYS, *operation.errors, *(OF_A_BODY if operation.body else ())})
    responses: dict[str, Any] = {"200": {"description": "done", "content": content}}
    for status in statuses:
        schema = operation.unavailable if status == 503 and operation.unavailable else {"$ref": error}
        responses[str(status)] = {"description": "why not", "content": {JSON: {"schema": schema}}}
    return responses
