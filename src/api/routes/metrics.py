"""GET /metrics. The manager counts: with several workers none could count all."""

import flask

from src.api.access.scopes import needs
from src.api.access.visibility import listed, visible
from src.api.gateway import gateway

blueprint = flask.Blueprint("metrics", __name__)

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@blueprint.get("/metrics")
@needs("monitor", unless_off="metrics_require_key")
def scrape() -> flask.Response:
    """A key with a list of models gets the figures of these, and those of no model."""
    manager = gateway().manager
    models = [model.name for model in visible(manager.status().models)] if listed() else None
    return flask.Response(manager.metrics(models), content_type=CONTENT_TYPE)
