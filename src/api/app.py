"""The Flask app factory. `application` is what Gunicorn serves; `python -m src.api.app` starts development mode."""

import os
import sys
from pathlib import Path

import flask

from src.api import (
    access,
    admin,
    audit,
    chat,
    completions,
    embeddings,
    failures,
    messages,
    metrics,
    models,
    openapi,
    record,
    responses,
    system,
    tokens,
)
from src.api.accept import name_ignored
from src.api.address import Proxies
from src.api.browser import Browsers
from src.api.draining import refuse_while_stopping
from src.api.keyring import Keyring
from src.api.quotas import Quotas
from src.api.replay import Store
from src.api.response_store import ResponseStore
from src.api.service import Service
from src.client import ManagerClient
from src.settings import ROOT, Settings


def create_app(settings: Settings) -> flask.Flask:
    """An app that asks the manager whose socket lies in settings.run_dir. Loads nothing: models live in the runners."""
    app = flask.Flask(__name__, static_folder=None)
    app.url_map.merge_slashes = False  # it would answer /v1//models with a redirect in HTML
    app.config["MAX_CONTENT_LENGTH"] = settings.max_body_bytes
    manager = ManagerClient(str(Path(settings.run_dir) / "manager.sock"))
    responses_kept = ResponseStore(Path(settings.run_dir) / "responses", settings.response_store_size)
    app.extensions["service"] = Service(settings, manager, Keyring(settings), Proxies(settings.proxies), _kept(settings), responses_kept)
    browsers = Browsers(settings.host_names, settings.origins)
    quotas = Quotas(settings, lease=settings.request_timeout + 60)
    for before in (record.begin, refuse_while_stopping, browsers.check, access.check, quotas.admit):
        app.before_request(before)
    for after in (record.end, browsers.permit, quotas.tell, audit.write, name_ignored):
        app.after_request(after)
    app.register_error_handler(Exception, failures.respond)
    for module in (chat, completions, responses, messages, embeddings, tokens, models, system, admin, openapi):
        app.register_blueprint(module.blueprint)
    if settings.metrics and not settings.metrics_address:
        app.register_blueprint(metrics.blueprint)
    return app


def _kept(settings: Settings) -> Store:
    bounds = settings.idempotency_seconds, settings.idempotency_max_answers, settings.idempotency_max_bytes
    return Store(Path(settings.run_dir) / "kept", *bounds)


def __getattr__(name: str) -> flask.Flask:
    """Make `application` when Gunicorn asks for it, not when a test imports this module for create_app."""
    if name == "application":
        return create_app(Settings.load())
    raise AttributeError(name)


if __name__ == "__main__":
    os.execv(sys.executable, [sys.executable, str(ROOT / "run.py"), "--mode", "dev"])
