"""One model that several keys ask: whatever one of them sends, the others are answered."""

import pytest

from src.keys import KeyFile
from tests.support.chats import ENDLESS, chat, streaming
from tests.support.in_process import InProcess
from tests.support.server import wait_until


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    """By name; the file is in the first one's place."""
    file = KeyFile(tmp_path_factory.mktemp("keys") / "keys.json")
    secrets = {name: file.add(name, **what)[0] for name, what in {"watch": {"scopes": ["admin"]}, "greedy": {}, "modest": {}}.items()}
    return {"file": file.path, **secrets}


@pytest.fixture(scope="module")
def server(keys):
    settings = {"ECHO_STEP_MS": 5, "MAX_PARALLEL_SEQUENCES": 16, "MAX_CONCURRENT_REQUESTS": 16}
    with InProcess(API_KEYS_FILE=keys["file"], key=keys["watch"], **settings) as running:
        yield running


def test_one_request_cannot_have_all_places(server, keys):
    refused = chat(server, keys["greedy"], {**ENDLESS, "n": 15})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "n")
    with streaming(server, keys["greedy"], {**ENDLESS, "n": 14}):
        refused = chat(server, keys["greedy"])
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "rate_limit_exceeded")
        assert int(refused.headers["retry-after"]) >= 1
        assert chat(server, keys["modest"]).status_code == 200
    wait_until(lambda: server.status()["requests"]["running"] == 0, 10, "the end of it")


def test_without_keys_each_address_has_its_share():
    settings = {"MAX_CONCURRENT_REQUESTS": 8, "MAX_PARALLEL_SEQUENCES": 8, "ECHO_STEP_MS": 5, "TRUSTED_PROXIES": "127.0.0.1"}
    with InProcess(**settings) as server, streaming(server, body={**ENDLESS, "n": 7}):
        assert [chat(server, X_Forwarded_For=address).status_code for address in ("127.0.0.1", "203.0.113.7")] == [429, 200]
