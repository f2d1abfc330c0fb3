"""GET /, for whoever opens the address or looks whether somebody is there, and what Claude Code asks beside its messages."""

import flask

from src.api.access.scopes import open_to_all
from src.api.gateway import json_response

blueprint = flask.Blueprint("root", __name__)

_WHERE = {"openai_base_url": "/v1", "anthropic_base_url": "/", "models": "/v1/models", "health": "/health", "routes": "/openapi.json"}
_TEXT = """This is an inference server for language models. OpenAI's clients take this address with /v1 as their base URL, Anthropic's
this address alone. GET /v1/models lists the models, GET /openapi.json all routes; docs/API.md describes them.
"""


@blueprint.get("/")
@open_to_all
def root() -> flask.Response:
    """Where to go from here, as text or as JSON."""
    accepted = flask.request.accept_mimetypes
    if accepted.best_match(["text/plain", "application/json"]) == "application/json":
        response = json_response({"message": " ".join(_TEXT.split()), **_WHERE})
    else:
        response = flask.Response(_TEXT, mimetype="text/plain")
    response.vary.add("Accept")
    return response


@blueprint.get("/api/hello")
@open_to_all
def hello() -> flask.Response:
    """Claude Code looks here whether it reaches the API."""
    return json_response({"message": "hello"})


@blueprint.post("/api/event_logging/batch")
@open_to_all
def events() -> flask.Response:
    """Claude Code's telemetry, which is not read."""
    return flask.Response(status=204)
