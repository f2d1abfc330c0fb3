"""The Flask app factory. `application` is what Gunicorn serves; `python -m src.api.app` starts development mode."""

import os
import sys
from functools import partial
from pathlib import Path

import flask

from src.api import failures
from src.api.access import audit, scopes
from src.api.access.address import Proxies
from src.api.access.bodies import BodyRoom
from src.api.access.browser import Browsers
from src.api.access.keyring import Keyring
from src.api.access.quotas import Quotas
from src.api.body import name_ignored
from src.api.gateway import Gateway
from src.api.generation.idempotency import is_kept
from src.api.generation.replay import Store
from src.api.generation.response_store import ResponseStore
from src.api.observe import record
from src.api.routes import admin, anthropic, chat, completions, embeddings, metrics, models, openapi, responses, root, system, tokens
from src.api.shutdown import refuse_while_stopping
from src.client.manager import ManagerClient
from src.settings import ROOT, Settings


def create_app(settings: Settings) -> flask.Flask:
    """An app that asks the manager whose socket lies in settings.run_dir. Loads nothing: models live in the runners."""
    app = flask.Flask(__name__, static_folder=None)
    app.url_map.merge_slashes = False  # it would answer /v1//models with a redirect in HTML
    app.config["MAX_CONTENT_LENGTH"] = settings.max_body_bytes
    run_dir = Path(settings.run_dir)
    app.extensions["gateway"] = Gateway(settings, ManagerClient(str(run_dir / "manager.sock")))
    app.extensions["keyring"] = Keyring(settings)
    app.extensions["kept_answers"] = _kept_answers(run_dir / "kept", settings)
    app.extensions["response_store"] = _response_store(settings)
    proxies = Proxies(settings.proxies)
    browsers = Browsers(settings.host_names, settings.origins)
    app.extensions["body_room"] = BodyRoom(settings.max_bodies_bytes)
    app.extensions["quotas"] = quotas = Quotas(settings, lease=settings.request_timeout + 60, is_kept=is_kept)
    for before in (partial(record.begin, proxies.client), refuse_while_stopping, browsers.check, scopes.check, quotas.admit):
        app.before_request(before)
    for after in (record.end, browsers.permit, quotas.add_headers, audit.write, name_ignored):
        app.after_request(after)
    app.register_error_handler(Exception, failures.respond)
    for module in (chat, completions, responses, anthropic, embeddings, tokens, models, system, admin, openapi, root):
        app.register_blueprint(module.blueprint)
    if settings.metrics and not settings.metrics_address:
        app.register_blueprint(metrics.blueprint)
    app.extensions["asked_by_clients"] = _asked_by_clients(app)
    return app


def _asked_by_clients(app: flask.Flask) -> frozenset[str]:
    """Paths whose POST is a question, of no use to anybody once its client has left: what an operator asks for is done all the same."""
    with app.app_context():
        rules = [rule for rule in app.url_map.iter_rules() if not rule.arguments and "POST" in (rule.methods or ())]
        return frozenset(rule.rule for rule in rules if scopes.scope_of(rule.endpoint) == "inference")


def _kept_answers(folder: Path, settings: Settings) -> Store:
    return Store(folder, settings.idempotency_seconds, settings.idempotency_max_answers, settings.idempotency_max_bytes)


def _response_store(settings: Settings) -> ResponseStore:
    most, size, seconds = settings.response_store_size, settings.response_store_max_bytes, settings.response_store_seconds
    return ResponseStore(settings.responses_path, most, size, seconds)


def __getattr__(name: str) -> flask.Flask:
    """Make `application` when Gunicorn asks for it, not when a test imports this module for create_app."""
    if name == "application":
        return create_app(Settings.load())
    raise AttributeError(name)


if __name__ == "__main__":
    os.execv(sys.executable, [sys.executable, str(ROOT / "run.py"), "--mode", "dev"])
