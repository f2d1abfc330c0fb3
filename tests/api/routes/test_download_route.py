"""POST /v1/models/download: the same downloads by HTTP, with their progress, for whoever runs the server."""

import json
import re
import socket
import threading

import httpx
import pytest

from tests.support.hub import Hub
from tests.support.in_process import InProcess
from tests.support.server import Server, wait_until
from tests.support.tiny_gguf import tiny_gguf

REPO = "org/small"
DOWNLOAD = "/v1/models/download"


@pytest.fixture(scope="module")
def hub():
    hub = Hub()
    hub.repositories[REPO] = {"small.gguf": tiny_gguf() + bytes(48 * 2**20), "README.md": b"small"}  # clients write 10 MB at a time
    yield hub
    hub.close()


@pytest.fixture(scope="module")
def server(hub, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    with pytest.MonkeyPatch.context() as environ:
        for name, value in {**hub.environ(), "MODELSCOPE_CACHE": str(folder / ".ms")}.items():
            environ.setenv(name, value)
        with InProcess(INFERENCE_ENGINE="auto", MODELS_DIR=folder, CONTEXT_LENGTH=256, MAX_PARALLEL_SEQUENCES=2) as running:
            yield running


def answers(server: Server) -> bool:
    try:
        return httpx.get(server.url + "/v1/models", timeout=10).status_code == 200
    except httpx.TransportError:
        return False


def call(server: InProcess | Server, method: str, path: str, **options: object) -> httpx.Response:
    with server.http(timeout=60) as http:
        return http.request(method, path, **options)


def post(server: InProcess | Server, headers: dict[str, str] | None = None, **body: object) -> httpx.Response:
    return call(server, "POST", DOWNLOAD, json=body, headers={**server.operator, **(headers or {})})


def steps(response: httpx.Response) -> list:
    return [data if data == "[DONE]" else json.loads(data) for data in re.findall(r"^data: (.*)$", response.text, re.MULTILINE)]


@pytest.mark.parametrize("source", ["huggingface", "modelscope"])
def test_a_model_is_downloaded_and_then_served(server, source):
    response = post(server, repo=REPO, source=source, name=f"from-{source}")
    assert (response.status_code, response.json()["id"], response.json()["state"]) == (200, f"from-{source}", "available")
    chat = {"model": f"from-{source}", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 2}
    assert call(server, "POST", "/v1/chat/completions", json=chat).status_code == 200


def test_progress_is_streamed_and_others_join(hub, server):
    hub.gate.clear()
    hub.at_gate.clear()
    streams: list[httpx.Response] = []
    body = {"repo": REPO, "source": "huggingface", "name": "slow", "stream": True}
    threads = [threading.Thread(target=lambda: streams.append(post(server, **body))) for _ in range(2)]
    for thread in threads:
        thread.start()
    assert hub.at_gate.wait(30)
    size = len(hub.repositories[REPO]["small.gguf"])
    wait_until(lambda: size // 4 < listed(server)["slow"]["bytes_read"] < size, what="half of it")
    hub.gate.set()
    for thread in threads:
        thread.join(60)
    for stream in streams:
        *told, done = steps(stream)
        assert (told[-1]["stage"], done) == ("done", "[DONE]")
        assert {step["bytes_total"] for step in told if step["stage"] == "downloading"} == {size + len(b"small")}
    assert hub.sent["small.gguf"] < 4 * size, "two streams, one download"
    assert listed(server)["slow"]["stage"] == "done"


def listed(server: InProcess) -> dict[str, dict]:
    return {state["name"]: state for state in call(server, "GET", DOWNLOAD, headers=server.operator).json()["data"]}


def test_a_download_goes_on_when_its_client_leaves(hub, server):
    hub.gate.clear()
    hub.at_gate.clear()
    body = {"repo": REPO, "source": "huggingface", "name": "left", "stream": True}
    with server.http() as http, http.stream("POST", DOWNLOAD, json=body, headers=server.operator) as response:
        next(response.iter_lines())
        assert hub.at_gate.wait(30)
    hub.gate.set()
    wait_until(lambda: listed(server)["left"]["stage"] == "done", what="its end")


def test_a_failure_is_told_with_its_reason(hub, server):
    response = post(server, repo="org/absent", source="huggingface")
    assert (response.status_code, response.json()["error"]["code"]) == (502, "download_failed")
    assert "there is no model 'org/absent'" in response.json()["error"]["message"]
    *_, last = steps(post(server, repo="org/absent", source="modelscope", stream=True))
    assert last["error"]["code"] == "download_failed"
    hub.wrong.add("small.gguf")
    response = post(server, repo=REPO, source="huggingface", name="wrong")
    hub.wrong.clear()
    assert (response.status_code, "small.gguf" in response.json()["error"]["message"]) == (502, True)
    assert "wrong" not in {model["id"] for model in call(server, "GET", "/v1/models").json()["data"]}


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "repo"),
        ({"repo": "--help"}, "repo"),
        ({"repo": "a\0b"}, "repo"),
        ({"repo": "a/b", "name": "../x"}, "name"),
        ({"repo": "a/b", "name": ".x"}, "name"),
        ({"repo": "a/b", "name": "-x"}, "name"),
        ({"repo": "a/b", "revision": "--x"}, "revision"),
        ({"repo": "a/b", "source": "ftp"}, "source"),
        ({"repo": "a/b", "include": "x"}, "include"),
    ],
)
def test_what_is_wrong_in_a_body_is_told(server, body, param):
    response = post(server, **body)
    assert (response.status_code, response.json()["error"]["param"]) == (400, param)


@pytest.mark.parametrize("name", ["Forwarded", "X-Forwarded-For", "X-Real-IP", "Via"])
def test_whoever_comes_through_a_proxy_is_refused(server, name):
    response = post(server, {name: "for=192.0.2.1"}, repo=REPO)
    assert (response.status_code, response.json()["error"]["code"]) == (403, "operator_only")
    assert call(server, "GET", DOWNLOAD, headers={**server.operator, name: "x"}).status_code == 403


@pytest.mark.parametrize("host", ["example.com", "127.0.0.1.example.com", "example.com:80"])
def test_a_page_under_another_name_is_refused(server, host):
    assert post(server, {"Host": host}, repo=REPO).status_code == 403


@pytest.mark.parametrize("host", ["localhost", "localhost:8001", "127.0.0.1", "[::1]:80"])
def test_names_of_this_machine_are_let_through(server, host):
    assert post(server, {"Host": host}).status_code == 400


def own_address() -> str | None:
    """An address of this machine that is no loopback address."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing
        except OSError:
            return None
        return probe.getsockname()[0]


def test_a_server_that_others_can_reach_refuses_downloads():
    address = own_address()
    if not address or address.startswith("127."):
        pytest.skip("this machine has no other address")
    with Server(INFERENCE_ENGINE="echo", HOST="0.0.0.0", ALLOW_UNAUTHENTICATED="true") as server:
        url = f"http://{address}:{server.port}/v1/models/download"
        response = httpx.post(url, json={"repo": REPO}, headers=server.operator, timeout=10)
        assert (response.status_code, response.json()["error"]["code"]) == (403, "operator_only")


@pytest.mark.slow
def test_a_download_ends_with_the_server_and_goes_on_with_the_next(hub, tmp_path):
    settings = {**hub.environ(), "MODELS_DIR": tmp_path, "CONTEXT_LENGTH": 256, "MAX_PARALLEL_SEQUENCES": 2}
    hub.gate.clear()
    hub.at_gate.clear()
    body = {"repo": REPO, "source": "huggingface", "name": "x", "stream": True}
    with Server(wait=False, **settings) as server:
        wait_until(lambda: answers(server), what="the gateway")
        with server.http() as http, http.stream("POST", DOWNLOAD, json=body, headers=server.operator) as response:
            next(response.iter_lines())
            assert hub.at_gate.wait(30)
    hub.gate.set()
    assert not (tmp_path / "x").exists()
    with Server(wait=False, **settings) as server:
        wait_until(lambda: answers(server), what="the gateway")
        assert post(server, **{**body, "stream": False}).json()["id"] == "x"
