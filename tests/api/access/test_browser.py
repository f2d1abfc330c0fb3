"""What web pages may do: no name that was made to lead here, no origin that was not named."""

import contextlib
import socket

import flask
import httpx
import pytest

from src import host_names
from src.api.access import browser
from src.errors import HostNotAllowed
from tests.support.in_process import InProcess

CHAT = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 4}
APP = "https://app.example.org"
PATH = "/v1/chat/completions"
OWN = socket.gethostname().removesuffix(".local")


@pytest.fixture(scope="module")
def closed():
    """As it comes."""
    with InProcess() as running:
        yield running


@pytest.fixture(scope="module")
def shared():
    """One origin and one name more, and a key."""
    settings = {"CORS_ORIGINS": f"{APP}, http://localhost:3000", "ALLOWED_HOSTS": "llm.example.org", "API_KEY": "k"}
    with InProcess(key="k", **settings) as running:
        yield running


def call(server: InProcess, method: str, path: str = PATH, **options: object) -> httpx.Response:
    with server.http() as http:
        return http.request(method, path, **options)


def ask(server: InProcess, **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return call(server, "POST", json=CHAT, headers={"Authorization": f"Bearer {server.key}", **named})


def preflight(server: InProcess, origin: str, **headers: str) -> httpx.Response:
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,content-type,x-stainless-os"}
    return call(server, "OPTIONS", headers={"Origin": origin, **asked, **headers})


def refusal(response: httpx.Response) -> tuple[int, str]:
    assert not [name for name in response.headers if name.startswith("access-control")]
    return response.status_code, response.json()["error"]["code"]


@pytest.mark.parametrize(
    "host",
    [
        "evil.com",
        "evil.com:8001",
        "localhost.evil.com",
        "127.0.0.1.evil.com",
        "localhost/v1/models?",
        "x",
        "localhost..",
        "evillocalhost",
        "docker.internal",
        "evil.host.docker.internal",
        "other.internal",
        "printer.local",
        f"{OWN}.evil.local",
        f"x{OWN}.local",
        "gateway.containers.internal",
        "10.0.0.1:evil",
        "127.0.0.1:evil",
        "10.0.0.1.evil.com",
        "0x7f.1",
        "1.2.3",
        "[evil.com]",
    ],
)
def test_a_name_that_was_made_to_lead_here_is_refused(closed, host):
    assert refusal(ask(closed, Host=host)) == (403, "host_not_allowed")
    assert call(closed, "GET", "/v1/models", headers={"Host": host}).status_code == 403
    assert call(closed, "GET", "/health", headers={"Host": host}).status_code == 403


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8001", "127.0.0.1", "127.0.0.1:1", "127.1.2.3", "[::1]", "[::1]:8001"])
def test_names_of_this_machine_are_this_servers(closed, host):
    assert ask(closed, Host=host).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        *("0.0.0.0", "0.0.0.0:8001", "10.0.0.1", "192.168.1.5:8001", "8.8.8.8", "[fd00::1]:8001", "[::]"),
        *("localhost.", "localhost.:8001", "app.localhost", "a.b.localhost:8001", "127.0.0.1."),
        *(
            "gateway.docker.internal",
            "host.docker.internal",
            "HOST.docker.internal:8001",
            "host.docker.internal.",
            "host.containers.internal",
        ),
        *(OWN, f"{OWN.upper()}:8001", f"{OWN}.local", f"{OWN}.local:8001", f"{OWN}.local."),
    ],
)
def test_names_that_nobody_can_make_lead_here_are_this_servers(closed, host):
    assert ask(closed, Host=host).status_code == 200


@pytest.mark.parametrize(("own", "is_own"), [("mac.local", True), ("MAC", True), ("mac.local.", True), ("other.local", False)])
def test_a_machines_name_is_its_own_with_local_and_without(monkeypatch, own, is_own):
    monkeypatch.setattr(socket, "gethostname", lambda: own)
    assert [host_names.is_nobodys(name) for name in ("mac", "mac.local")] == [is_own] * 2


def test_such_a_name_opens_nothing_to_a_page_of_another_origin(closed):
    for host in ("192.168.1.5", "host.docker.internal"):
        assert refusal(ask(closed, Host=host, Origin="http://192.168.1.66")) == (403, "origin_not_allowed")
        assert (
            call(closed, "POST", "/v1/models/load", json={"model_name": "echo"}, headers={"Host": host, **closed.operator}).status_code
            == 403
        )


def test_a_name_of_the_operators_is_this_servers_too(shared):
    assert ask(shared, Host="LLM.example.org:443").status_code == 200
    assert refusal(ask(shared, Host="other.example.org")) == (403, "host_not_allowed")


@pytest.mark.parametrize(
    "origin", ["https://evil.com", "http://localhost.evil.com", "http://localhost:3000", "null", "", "file://", "http://127.0.0.1:1", APP]
)
def test_by_default_no_page_of_another_origin_may_ask(closed, origin):
    assert refusal(ask(closed, Origin=origin)) == (403, "origin_not_allowed")
    assert refusal(preflight(closed, origin)) == (403, "origin_not_allowed")
    seen = call(closed, "GET", "/v1/models", headers={"Origin": origin})
    assert seen.status_code == 200
    assert not [name for name in seen.headers if name.startswith("access-control")], "so the browser keeps it from the page"


def test_a_page_that_this_server_itself_would_serve_may_ask(closed):
    host = "127.0.0.1:8001"
    assert ask(closed, Host=host, Origin=f"http://{host}").status_code == 200


def test_a_form_of_a_page_cannot_send_json(closed):
    response = call(closed, "POST", content=b"{}", headers={"Content-Type": "text/plain"})
    assert (response.status_code, response.json()["error"]["code"]) == (415, "unsupported_media_type")


@pytest.mark.parametrize("origin", [APP, "http://localhost:3000"])
def test_a_named_origin_gets_its_preflight_and_its_answer(shared, origin):
    before = preflight(shared, origin)
    assert (before.status_code, before.content) == (204, b"")
    assert before.headers["access-control-allow-origin"] == origin
    assert before.headers["access-control-allow-headers"] == "authorization,content-type,x-stainless-os"
    assert "POST" in before.headers["access-control-allow-methods"]
    answer = ask(shared, Origin=origin)
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == origin
    assert answer.headers["access-control-allow-credentials"] == "true"
    assert answer.headers["vary"] == "Origin"
    assert "X-Request-ID" in answer.headers["access-control-expose-headers"]


def test_a_named_origin_gets_the_errors_and_streams_too(shared):
    wrong = ask(shared, Origin=APP, Authorization="Bearer wrong")
    assert (wrong.status_code, wrong.headers["access-control-allow-origin"]) == (401, APP)
    body, headers = {**CHAT, "stream": True}, {"Authorization": "Bearer k", "Origin": APP}
    stream = call(shared, "POST", json=body, headers=headers)
    assert stream.headers["access-control-allow-origin"] == APP
    assert stream.text.endswith("data: [DONE]\n\n")


@pytest.mark.parametrize(
    "origin", ["https://app.example.org.evil.com", "http://app.example.org", "https://app.example.org:444", "https://example.org"]
)
def test_only_the_exact_origin_is_named(shared, origin):
    assert refusal(ask(shared, Origin=origin)) == (403, "origin_not_allowed")
    assert refusal(preflight(shared, origin)) == (403, "origin_not_allowed")


def test_a_preflight_needs_no_key_but_any_other_options_does(shared):
    assert preflight(shared, APP).status_code == 204
    assert call(shared, "OPTIONS").status_code == 401
    assert call(shared, "OPTIONS", headers={"Origin": APP}).status_code == 401


def test_header_names_of_a_preflight_are_not_echoed_where_they_are_none(shared):
    answer = preflight(shared, APP, **{"Access-Control-Request-Headers": "a:b; <script>"})
    assert answer.headers["access-control-allow-headers"] == "Authorization, Content-Type"


def test_all_origins_come_without_credentials():
    with InProcess(CORS_ORIGINS="*") as server:
        answer = ask(server, Origin="https://anywhere.example")
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, "*")
        assert "access-control-allow-credentials" not in answer.headers
        unload = call(server, "POST", "/v1/models/unload", json={"model_name": "echo"}, headers={"Origin": "https://anywhere.example"})
        assert (unload.status_code, unload.json()["error"]["code"]) == (403, "operator_only")


@pytest.mark.parametrize(("local", "host", "allowed"), [
    ("192.168.1.9", "192.168.1.5", True),
    ("192.168.1.9", "host.docker.internal", True),
    ("192.168.1.9", "llm.example.org", True),
    ("192.168.1.9", "evil.com", False),
    ("8.8.8.8", "8.8.8.8", True),
    ("8.8.8.8", "localhost", True),
    ("8.8.8.8", "9.9.9.9", False),
    ("8.8.8.8", "host.docker.internal", False),
])  # fmt: skip
def test_on_a_public_address_only_the_operators_names_are_added(monkeypatch, local, host, allowed):
    class Client:
        family = socket.AF_INET

        def getsockname(self) -> tuple[str, int]:
            return local, 8001

    monkeypatch.setattr(browser, "client_socket", Client)
    with flask.Flask(__name__).test_request_context(headers={"Host": host}):
        with contextlib.nullcontext() if allowed else pytest.raises(HostNotAllowed):
            browser.Browsers({"llm.example.org"}, set()).check()
        browser.Browsers(set(), set()).check()  # without names of the operator's all are let in there, as it was
