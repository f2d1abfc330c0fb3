"""GET /v1/models and /v1/models/{id}, POST /v1/models/load."""

from typing import Any

import flask

from src.api.body import read_json
from src.api.schema import LoadRequest, parse
from src.api.service import client_socket, json_response, service
from src.errors import ModelNotFound
from src.protocol import ModelState

blueprint = flask.Blueprint("models", __name__)


@blueprint.get("/v1/models")
def list_all() -> flask.Response:
    status = service().manager.status()
    return json_response({"object": "list", "data": [_model(model) for model in status.models]})


@blueprint.get("/v1/models/<path:name>")
def retrieve(name: str) -> flask.Response:
    models = {model.name: model for model in service().manager.status().models}
    if name not in models:
        raise ModelNotFound(f"The model {name[:100]!r} does not exist. Models here: {', '.join(models) or 'none'}.", param="model")
    return json_response(_model(models[name]))


@blueprint.post("/v1/models/load")
def load() -> flask.Response:
    """Answers once the model is loaded, or with the reason why it is not."""
    request = parse(LoadRequest, read_json(service().settings.body_timeout))
    service().manager.load(request.model_name, service().deadline(), client_socket())
    return retrieve(request.model_name)


def _model(model: ModelState) -> dict[str, Any]:
    """OpenAI's fields, then ours."""
    return {
        "id": model.name,
        "object": "model",
        "created": model.modified,
        "owned_by": "local",
        "state": model.state,
        "reason": model.reason,
        "engine": model.engine,
        "format": model.format,
        "size_bytes": model.size_bytes,
        "context_length": model.context_length,
    }
