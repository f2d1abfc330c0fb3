"""What an admin may change at run time: keys and the log level, in every process, with a line for each act."""

import json
import re
import time

import httpx
import pytest

from src.keys import KeyFile
from tests.support.in_process import InProcess
from tests.support.server import Server, wait_until

CHAT = {"messages": [{"role": "user", "content": "canary-prompt"}], "max_tokens": 4}


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return KeyFile(tmp_path_factory.mktemp("keys") / "keys.json")


@pytest.fixture(scope="module")
def server(file):
    secret, _ = file.add("ops", scopes=["admin"])
    with Server(INFERENCE_ENGINE="echo", disposable=True, API_KEYS_FILE=file.path, WORKERS=2, LOG_FORMAT="json", key=secret) as running:
        wait_until(lambda: len(running.pids("gateway")) == 2, what="two gateway workers")
        yield running


@pytest.fixture
def http(server):
    with httpx.Client(base_url=server.url, headers={"x-api-key": server.key}, timeout=30) as client:
        yield client


def lines(server: Server, log: str) -> list[dict]:
    return [json.loads(line) for line in server.log(log).splitlines()]


def acts(server: Server, act: str) -> list[dict]:
    return [line for line in lines(server, "audit") if line["act"].startswith(act)]


def status(server: Server, key: str) -> int:
    return httpx.post(server.url + "/v1/chat/completions", json=CHAT, headers={"x-api-key": key}, timeout=30).status_code


def test_a_key_is_made_shown_once_listed_renewed_and_revoked(server, http, file):
    made = http.post("/v1/admin/keys", json={"name": "alice", "requests_per_minute": 1000, "expires": int(time.time()) + 99}).json()
    secret = made.pop("key")
    assert (made["name"], made["scopes"], made["requests_per_minute"], made["expired"]) == ("alice", ["inference"], 1000, False)
    assert [status(server, secret) for _ in range(4)] == [200] * 4, "a new key is one at once, in both workers"
    listed = http.get("/v1/admin/keys")
    assert [key["name"] for key in listed.json()["data"]] == ["ops", "alice"]
    assert not re.search(r"salt|hash|sk-", listed.text)
    renewed = http.post("/v1/admin/keys/alice/rotate").json()["key"]
    wait_until(lambda: {status(server, secret) for _ in range(4)} == {401}, 10, "the end of the old key in both workers")
    assert [status(server, renewed) for _ in range(4)] == [200] * 4
    assert http.delete("/v1/admin/keys/alice").json() == {"object": "key", "name": "alice", "deleted": True}
    wait_until(lambda: {status(server, renewed) for _ in range(4)} == {401}, 10, "the end of the key in both workers")
    assert [key.name for key in file.read()] == ["ops"]
    written = "".join(path.read_text() for path in (server.folder / "logs").glob("*.log")) + server.output
    assert secret not in written
    assert renewed not in written


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        ({}, "missing_required_parameter", "name"),
        ({"name": "a b"}, "invalid_value", "name"),
        ({"name": "ops"}, "invalid_value", "name"),
        ({"name": "x", "scopes": ["root"]}, "invalid_value", "scopes[0]"),
        ({"name": "x", "scopes": []}, "invalid_value", "scopes"),
        ({"name": "x", "concurrent": -1}, "invalid_value", "concurrent"),
        ({"name": "x", "models": ["m"], "scopes": ["admin"]}, "invalid_value", "models"),
    ],
)
def test_what_is_wrong_with_a_new_key_is_told(http, file, body, code, param):
    response = http.post("/v1/admin/keys", json=body)
    assert (response.status_code, response.json()["error"]["code"], response.json()["error"]["param"]) == (400, code, param)
    assert [key.name for key in file.read()] == ["ops"]


def test_a_key_that_is_not_there_is_told(http):
    for response in (http.delete("/v1/admin/keys/none"), http.post("/v1/admin/keys/none/rotate")):
        assert (response.status_code, response.json()["error"]["code"]) == (404, "not_found")


def test_every_act_of_an_admin_has_a_line_that_says_who_what_and_how_it_ended(server, http):
    http.post("/v1/models/load", json={"model_name": "echo"})
    http.post("/v1/models/unload", json={"model_name": "none"})
    http.post("/v1/models/switch", json={})
    http.post("/v1/models/download", json={"repo": "-wrong"})
    http.delete("/v1/admin/keys/none")
    request_id = http.post("/v1/models/load", json={"model_name": "echo"}, headers={"X-Request-ID": "mine-1"}).headers["x-request-id"]
    wait_until(lambda: [line for line in lines(server, "audit") if line["id"] == request_id])
    (load, *_), (unload, *_) = acts(server, "POST /v1/models/load"), acts(server, "POST /v1/models/unload")
    assert (load["by"], load["client"], load["model"], load["status"]) == ("ops", "127.0.0.1", "echo", 200)
    assert (unload["model"], unload["status"], unload["error"]) == ("none", 404, "model_not_found")
    assert acts(server, "POST /v1/models/switch")[0]["status"] == acts(server, "POST /v1/models/download")[0]["status"] == 400
    assert acts(server, "DELETE /v1/admin/keys/none")[0]["status"] == 404
    assert not acts(server, "GET"), "looking changes nothing"


@pytest.mark.slow
def test_the_level_changes_in_every_process_and_of_those_that_start_later(server, http):
    assert http.get("/v1/admin/log-level").json() == {"level": "INFO"}
    assert http.post("/v1/admin/log-level", json={"level": "loud"}).status_code == 400
    assert http.post("/v1/admin/log-level", json={"level": "WARNING"}).json() == {"level": "WARNING"}
    wait_until(lambda: [http_level(server) for _ in range(6)] == ["WARNING"] * 6, 10, "the level in both workers")
    wait_until(lambda: not said_of_a_load(server, http), 10, "the level in the manager, which tells of loads at INFO, and in the runner")
    assert "is ready after" in server.log("model_operations").splitlines()[-1], "a log of its own is not emptied"
    assert http.post("/v1/admin/log-level", json={"level": "DEBUG"}).status_code == 200
    wait_until(lambda: [http_level(server) for _ in range(6)] == ["DEBUG"] * 6, 10, "the level in both workers")
    wait_until(lambda: "is ready after" in "".join(said_of_a_load(server, http)), 10, "the level in the manager")
    assert [line["level"] for line in acts(server, "POST /v1/admin/log-level") if line["status"] == 200] == ["WARNING", "DEBUG"]


def said_of_a_load(server: Server, http: httpx.Client) -> list[str]:
    """What the manager and the runner write while the model is loaded anew."""
    before = len(lines(server, "app"))
    for act in ("unload", "load"):
        assert http.post(f"/v1/models/{act}", json={"model_name": "echo"}).status_code == 200
    return [line["message"] for line in lines(server, "app")[before:] if line["process"] in ("manager", "runner")]


def http_level(server: Server) -> str:
    """Of one of the workers."""
    return httpx.get(server.url + "/v1/admin/log-level", headers={"x-api-key": server.key}).json()["level"]


def test_every_line_of_every_log_and_of_the_terminal_is_one_object(server, http):
    http.post("/v1/chat/completions", json=CHAT)
    httpx.post(server.url + "/v1/chat/completions", content=b"{", headers={"x-api-key": server.key, "Content-Type": "application/json"})
    wait_until(lambda: any(line["status"] == 400 for line in lines(server, "api_requests")))
    for path in (server.folder / "logs").glob("*.log"):
        for line in path.read_text().splitlines():
            assert {"time", "log", "process", "pid"} <= json.loads(line).keys(), line
    request = next(line for line in lines(server, "api_requests") if line["tokens_out"] and line["key"] == "ops")
    assert (request["key"], request["client"], request["model"], request["tokens_out"]) == ("ops", "127.0.0.1", "echo", 4)
    assert isinstance(request["total_ms"], int)
    terminal = [json.loads(line) for line in server.output.splitlines() if line]
    assert {"gunicorn", "manager"} <= {line["process"] for line in terminal}
    assert "canary-prompt" not in server.output + server.log("app") + server.log("api_requests")


def test_without_a_file_of_keys_their_routes_say_what_to_do():
    with InProcess() as server, server.http(headers=server.operator) as http:
        response = http.get("/v1/admin/keys")
        assert (response.status_code, response.json()["error"]["code"]) == (400, "invalid_value")
        assert "Set API_KEYS_FILE" in response.json()["error"]["message"]
