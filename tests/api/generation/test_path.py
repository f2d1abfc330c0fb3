"""How far a token has to go: at most five generators between a runner's line, or a kept one, and what Gunicorn sends."""

import inspect
import sys
import uuid

import pytest
from werkzeug.test import EnvironBuilder

from src.api.app import create_app
from src.api.observe.record import AccessRecord
from src.settings import Settings
from tests.support.server import Server

CHAT = {"model": "echo", "messages": [{"role": "user", "content": "hello"}], "stream": True}
BODIES = {
    "/v1/chat/completions": CHAT,
    "/v1/completions": {"model": "echo", "prompt": "hello", "stream": True},
    "/v1/messages": {**CHAT, "max_tokens": 50},
    "/v1/responses": {"model": "echo", "input": "hello", "stream": True},
}


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    """A gateway in this process, whose manager and runner are a real server's."""
    run_dir = tmp_path_factory.mktemp("run")
    with Server(INFERENCE_ENGINE="echo", RUN_DIR=run_dir, disposable=True):
        yield create_app(Settings(run_dir=str(run_dir)))


def generators() -> int:
    """Those that are running at this moment: each has called the next."""
    frame, count = sys._getframe(1), 0
    while frame:
        count += bool(frame.f_code.co_flags & inspect.CO_GENERATOR)
        frame = frame.f_back
    return count


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize("kept", [False, True], ids=["from a runner", "from a kept answer"])
def test_a_token_passes_at_most_five_generators(app, monkeypatch, path, kept):
    """Counted where the record sees an event, which is in the first of them. The last is Werkzeug's own."""
    headers = {"Idempotency-Key": uuid.uuid4().hex} if kept else {}
    depths = []
    observe = AccessRecord.observe

    def counting(entry: AccessRecord, event: object) -> None:
        depths.append(generators())
        observe(entry, event)

    monkeypatch.setattr(AccessRecord, "observe", counting)
    environ = EnvironBuilder(path=path, method="POST", json=BODIES[path], headers=headers).get_environ()
    frames = app(environ, lambda status, headers: None)
    assert len(depths) == 1, "only the first event is awaited before there is a response"
    outside = generators()
    sent = b"".join(frames)
    frames.close()
    assert sent.count(b"data: ") >= 3
    assert len(depths) >= 4
    assert max(depths[1:]) - outside <= 5
