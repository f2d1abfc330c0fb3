"""GET /openapi.json: every route of this server, made from the schemas that check requests."""

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import flask
import msgspec
from pydantic.json_schema import GenerateJsonSchema, models_json_schema

from src.api.gateway import Gateway, json_response
from src.api.schema import Strict, output
from src.api.schema.admin import KeyRequest, LogLevelRequest
from src.api.schema.anthropic import CountTokensRequest, MessagesRequest
from src.api.schema.chat import ChatRequest
from src.api.schema.completion import CompletionRequest
from src.api.schema.embedding import EmbeddingRequest
from src.api.schema.limits import with_settings
from src.api.schema.models import DownloadRequest, LoadRequest, SwitchRequest, UnloadRequest
from src.api.schema.output import Schema
from src.api.schema.responses import InputTokensRequest, ResponsesRequest
from src.api.schema.tokens import DetokenizeRequest, TokenizeChatRequest, TokenizeTextRequest

blueprint = flask.Blueprint("openapi", __name__)

REF = "#/components/schemas/{model}"
ALWAYS = (401, 403, 500, 503)
OF_A_BODY = (400, 408, 413, 415)
OF_A_MODEL = (404, 422, 429, 504)  # of a request that a runner answers
OF_A_QUERY = (400, 404, 429, 504)  # in the URL
OF_A_KEPT_ANSWER = (400, 404, 504)
ERRORS = {"Error": output.ERROR, "AnthropicError": output.ANTHROPIC_ERROR}
JSON, EVENTS = "application/json", "text/event-stream"


class Operation(NamedTuple):
    answer: Schema
    body: tuple[type[Strict], ...] = ()  # any of these
    errors: tuple[int, ...] = ()  # in addition to those of every route and of every body
    streams: bool = False
    content_type: str = JSON
    as_text: bool = False  # too
    status: int = 200  # 204: no content
    unavailable: Schema | None = None  # the body of a 503, where it is not an error


OPERATIONS: dict[str, Operation] = {
    "POST /v1/chat/completions": Operation(output.CHAT, (ChatRequest,), OF_A_MODEL, streams=True),
    "POST /v1/completions": Operation(output.COMPLETION, (CompletionRequest,), OF_A_MODEL, streams=True),
    "GET /v1/chat/completions/{name}": Operation(output.CHAT, errors=OF_A_KEPT_ANSWER, streams=True),
    "GET /v1/completions/{name}": Operation(output.COMPLETION, errors=OF_A_KEPT_ANSWER, streams=True),
    "POST /v1/responses": Operation(output.RESPONSE, (ResponsesRequest,), OF_A_MODEL, streams=True),
    "POST /v1/responses/input_tokens": Operation(output.INPUT_TOKENS, (InputTokensRequest,), OF_A_MODEL),
    "GET /v1/responses/{id}": Operation(output.RESPONSE, errors=(404,)),
    "DELETE /v1/responses/{id}": Operation(output.DELETED, errors=(404,)),
    "POST /v1/messages": Operation(output.MESSAGE, (MessagesRequest,), OF_A_MODEL, streams=True),
    "POST /v1/messages/count_tokens": Operation(output.COUNTED, (CountTokensRequest,), OF_A_MODEL),
    "POST /v1/embeddings": Operation(output.EMBEDDINGS, (EmbeddingRequest,), OF_A_MODEL),
    "POST /v1/tokenize": Operation(output.TOKENIZED, (TokenizeChatRequest, TokenizeTextRequest), OF_A_MODEL),
    "POST /tokenize": Operation(output.TOKENIZED, (TokenizeChatRequest, TokenizeTextRequest), OF_A_MODEL),
    "POST /v1/detokenize": Operation(output.DETOKENIZED, (DetokenizeRequest,), OF_A_MODEL),
    "POST /detokenize": Operation(output.DETOKENIZED, (DetokenizeRequest,), OF_A_MODEL),
    "GET /v1/tokenizer_info": Operation(output.TOKENIZER, errors=OF_A_QUERY),
    "GET /tokenizer_info": Operation(output.TOKENIZER, errors=OF_A_QUERY),
    "POST /v1/chat/template": Operation(output.TEMPLATE, (ChatRequest,), OF_A_MODEL),
    "GET /v1/models": Operation(output.ANY_MODELS),
    "GET /v1/models/{name}": Operation(output.ANY_MODEL, errors=(404,)),
    "GET /v1/models/{name}/plan": Operation(output.PLAN, errors=(404,)),
    "POST /v1/models/load": Operation(output.MODEL, (LoadRequest,), (404, 504), streams=True),
    "POST /v1/models/unload": Operation(output.MODEL, (UnloadRequest,), (404, 504)),
    "POST /v1/models/switch": Operation(output.MODEL, (SwitchRequest,), (404, 504)),
    "POST /v1/models/download": Operation(output.MODEL, (DownloadRequest,), (404, 502, 504), streams=True),
    "GET /v1/models/download": Operation(output.DOWNLOADS),
    "GET /v1/admin/keys": Operation(output.KEYS, errors=(400,)),
    "POST /v1/admin/keys": Operation(output.NEW_KEY, (KeyRequest,)),
    "POST /v1/admin/keys/{name}/rotate": Operation(output.NEW_KEY, errors=(400, 404)),
    "DELETE /v1/admin/keys/{name}": Operation(output.REVOKED, errors=(400, 404)),
    "GET /v1/admin/log-level": Operation(output.LOG_LEVEL),
    "POST /v1/admin/log-level": Operation(output.LOG_LEVEL, (LogLevelRequest,)),
    "GET /health": Operation(output.HEALTHY, unavailable=output.UNHEALTHY),
    "GET /v1/system/status": Operation(output.STATUS),
    "GET /metrics": Operation(output.TEXT, content_type="text/plain"),
    "GET /openapi.json": Operation(output.ITSELF),
    "GET /": Operation(output.WHERE, as_text=True),
    "GET /api/hello": Operation(output.HELLO),
    "POST /api/event_logging/batch": Operation({}, status=204),
}


@blueprint.get("/openapi.json")
def document() -> flask.Response:
    """This document."""
    extensions = flask.current_app.extensions
    if "openapi" not in extensions:  # to make it takes as long as hundreds of other requests
        extensions["openapi"] = msgspec.Raw(msgspec.json.encode(describe(flask.current_app)))
    return json_response(extensions["openapi"])


class _Untitled(GenerateJsonSchema):
    def field_title_should_be_set(self, schema: Any) -> bool:
        return False  # "Max Tokens" says nothing that max_tokens does not


def describe(app: flask.Flask) -> dict[str, Any]:
    """The document for this app. Raises KeyError for a route without a row above."""
    kinds = {kind for operation in OPERATIONS.values() for kind in operation.body}
    ordered = sorted(kinds, key=lambda kind: kind.__name__)
    _, schemas = models_json_schema([(kind, "validation") for kind in ordered], ref_template=REF, schema_generator=_Untitled)
    paths: dict[str, dict[str, Any]] = {}
    for path, method, summary in sorted(_routes(app)):
        paths.setdefault(path, {})[method.lower()] = _operation(OPERATIONS[f"{method} {path}"], path, summary)
    gateway: Gateway = app.extensions["gateway"]
    components = {**with_settings(schemas["$defs"], gateway.settings), **ERRORS}
    return {
        "openapi": "3.1.0",
        "info": {"title": "LLM inference service", "version": "1", "description": "docs/API.md describes every field."},
        "paths": paths,
        "components": {"schemas": components, "responses": {name: _why_not({"$ref": REF.format(model=name)}) for name in ERRORS}},
    }


def _why_not(schema: Schema | None) -> dict[str, Any]:
    return {"description": "why not", "content": {JSON: {"schema": schema}}}


def _routes(app: flask.Flask) -> Iterator[tuple[str, str, str]]:
    """(path, method, what it does)"""
    for rule in app.url_map.iter_rules():
        text = app.view_functions[rule.endpoint].__doc__ or rule.endpoint.partition(".")[0]
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}:
            yield re.sub(r"<(?:path:)?(\w+)>", r"{\1}", rule.rule), method, text.partition("\n")[0]


def _operation(operation: Operation, path: str, summary: str) -> dict[str, Any]:
    described: dict[str, Any] = {"summary": summary, "responses": _responses(operation, path)}
    if names := re.findall(r"{(\w+)}", path):
        described["parameters"] = [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}} for name in names
        ]
    if operation.body:
        refs = [{"$ref": REF.format(model=kind.__name__)} for kind in operation.body]
        described["requestBody"] = {"required": True, "content": {JSON: {"schema": refs[0] if len(refs) == 1 else {"anyOf": refs}}}}
    return described


def _responses(operation: Operation, path: str) -> dict[str, Any]:
    content: dict[str, Any] = {operation.content_type: {"schema": operation.answer}}
    if operation.streams:
        content[EVENTS] = {"schema": output.EVENT}
    if operation.as_text:
        content["text/plain"] = {"schema": output.TEXT}
    error = "AnthropicError" if path.startswith("/v1/messages") else "Error"
    statuses = sorted({*ALWAYS, *operation.errors, *(OF_A_BODY if operation.body else ())})
    done = {"description": "done", "content": content} if operation.status != 204 else {"description": "done"}
    responses: dict[str, Any] = {str(operation.status): done}
    for status in statuses:
        is_other = status == 503 and operation.unavailable
        responses[str(status)] = _why_not(operation.unavailable) if is_other else {"$ref": f"#/components/responses/{error}"}
    return responses
