"""Keys: every route asks for one, every failure gets the same answer, scopes and model lists hold, changes are followed."""

import re
import time

import httpx
import psutil
import pytest

from src.api.app import create_app
from src.keys import KeyFile
from src.settings import Settings
from tests.support.in_process import InProcess
from tests.support.raw_http import ask, parsed
from tests.support.server import Server, wait_until

CHAT = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 4}
OPEN = {(method, path) for path in ("/health", "/", "/api/hello") for method in ("GET", "HEAD", "OPTIONS")}
OPEN |= {(method, "/api/event_logging/batch") for method in ("POST", "OPTIONS")}
CANARY = "sk-canary-93f1"


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return KeyFile(tmp_path_factory.mktemp("keys") / "keys.json")


@pytest.fixture(scope="module")
def secrets(file):
    return {
        "alice": file.add("alice")[0],
        "watch": file.add("watch", scopes=["monitor"])[0],
        "ops": file.add("ops", scopes=["admin"])[0],
        "guest": file.add("guest", models=["other"])[0],
        "late": file.add("late", expires=int(time.time()) - 1)[0],
    }


@pytest.fixture(scope="module")
def server(file, secrets):
    with InProcess(API_KEYS_FILE=file.path, key=secrets["ops"]) as running:
        yield running


@pytest.fixture(scope="module")
def served(file, secrets):
    """The same behind Gunicorn, with its logs."""
    with Server(INFERENCE_ENGINE="echo", disposable=True, API_KEYS_FILE=file.path, key=secrets["ops"]) as running:
        yield running


def call(server: InProcess | Server, method: str, path: str, key: str | None = None, **options: object) -> httpx.Response:
    headers = {"Authorization": f"Bearer {key}"} if key is not None else {}
    with server.http() as http:
        return http.request(method, path, headers={**headers, **options.pop("headers", {})}, **options)


def chat(server: InProcess | Server, key: str | None, **fields: object) -> httpx.Response:
    return call(server, "POST", "/v1/chat/completions", key, json={**CHAT, **fields})


def code(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, response.json()["error"]["code"]


def routes() -> list[tuple[str, str]]:
    found = []
    for rule in create_app(Settings()).url_map.iter_rules():
        path = re.sub(r"<[^>]*>", "echo", rule.rule)
        found += [(method, path) for method in sorted(rule.methods)]
    return sorted(found)


@pytest.mark.parametrize("key", [None, "wrong"])
def test_every_route_with_every_method_needs_a_key_but_for_those_that_tell_nothing(server, key):
    answered = {(method, path) for method, path in routes() if call(server, method, path, key).status_code != 401}
    assert answered == OPEN


@pytest.mark.parametrize(
    "path",
    [
        "/v1/models/",
        "//v1/models",
        "/v1%2fmodels",
        "/V1/models",
        "/v1/models/../models",
        "/nowhere",
        "/api",
        "/api/",
        "/health/",
        "/healthz",
    ],
)
def test_no_spelling_of_an_address_leads_around_the_key(served, path):
    answer = ask(served.port, f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    assert parsed(answer).status_code == 401


WRONG: list[dict[str, bytes]] = [
    {},
    {"Authorization": b""},
    {"Authorization": b"Bearer"},
    {"Authorization": b"Bearer wrong"},
    {"Authorization": b"Basic d3Jvbmc6d3Jvbmc="},
    {"Authorization": "Bearer ключ".encode()},
    {"Authorization": b"Bearer \xff\xfe"},
    {"Authorization": b"Bearer " + b"x" * 7000},
    {"Authorization": b"Bearer ' OR 1=1--"},
    {"x-api-key": b"wrong"},
    {"x-api-key": b""},
]


def test_every_failure_to_show_a_key_gets_the_same_answer(served, secrets):
    tries = [*WRONG, {"Authorization": f"Bearer {secrets['late']}".encode()}, {"Authorization": f"Bearer {secrets['alice'][:-1]}".encode()}]
    answers = [call(served, "GET", "/v1/models", headers=headers) for headers in tries]
    assert {answer.status_code for answer in answers} == {401}
    assert len({answer.content for answer in answers}) == 1
    assert {answer.headers["www-authenticate"] for answer in answers} == {"Bearer"}
    error = answers[0].json()["error"]
    assert (error["type"], error["param"], error["code"]) == ("invalid_request_error", None, "invalid_api_key")


def test_two_authorization_headers_are_no_key(served, secrets):
    headers = [("Authorization", "Bearer wrong"), ("Authorization", f"Bearer {secrets['alice']}")]
    assert httpx.get(served.url + "/v1/models", headers=headers).status_code == 401


def test_a_key_is_taken_from_either_header(server, secrets):
    for headers in (
        {"Authorization": f"Bearer {secrets['alice']}"},
        {"authorization": f"bearer {secrets['alice']}"},
        {"x-api-key": secrets["alice"]},
    ):
        assert call(server, "POST", "/v1/chat/completions", json=CHAT, headers=headers).status_code == 200


def test_openais_client_works_with_its_key_and_tells_a_wrong_one(server, secrets):
    import openai

    answer = server.client(api_key=secrets["alice"]).chat.completions.create(model="echo", **CHAT)
    assert answer.choices[0].message.content == "user"
    with pytest.raises(openai.AuthenticationError, match="needs an API key"):
        server.client(api_key="wrong").models.list()


ADMIN = [
    ("POST", "/v1/models/load"), ("POST", "/v1/models/unload"), ("POST", "/v1/models/switch"), ("POST", "/v1/models/download"),
    ("GET", "/v1/models/download"), ("GET", "/v1/admin/keys"), ("POST", "/v1/admin/keys"), ("POST", "/v1/admin/keys/x/rotate"),
    ("DELETE", "/v1/admin/keys/x"), ("GET", "/v1/admin/log-level"), ("POST", "/v1/admin/log-level"),
]  # fmt: skip
MONITOR = [("GET", "/v1/system/status"), ("GET", "/v1/models/echo/plan"), ("GET", "/metrics")]


@pytest.mark.parametrize(("who", "allowed"), [("alice", []), ("watch", MONITOR), ("ops", [*ADMIN, *MONITOR])])
def test_a_scope_opens_its_routes_and_no_others(server, secrets, who, allowed):
    refused = [route for route in [*ADMIN, *MONITOR] if call(server, *route, secrets[who]).status_code == 403]
    assert refused == [route for route in [*ADMIN, *MONITOR] if route not in allowed]


def test_what_a_key_lacks_is_told(server, secrets):
    response = call(server, "POST", "/v1/models/unload", secrets["alice"], json={"model_name": "echo"})
    assert code(response) == (403, "insufficient_scope")
    assert "needs the scope admin" in response.json()["error"]["message"]
    assert code(chat(server, secrets["watch"])) == (403, "insufficient_scope")
    assert chat(server, secrets["ops"]).status_code == 200


def test_health_is_open_and_names_models_only_to_those_who_may_know_them(server, secrets):
    assert call(server, "GET", "/health").json() == {"status": "ok"}
    assert call(server, "GET", "/health", "wrong").json() == {"status": "ok"}
    assert call(server, "GET", "/health", secrets["guest"]).json() == {"status": "ok"}
    assert call(server, "GET", "/health", secrets["alice"]).json() == {"status": "ok", "models_ready": ["echo"]}


def test_a_key_stands_by_its_name_in_the_log_and_nowhere_itself(served, secrets):
    chat(served, secrets["alice"])
    chat(served, CANARY)
    call(served, "GET", "/v1/models", headers={"x-api-key": CANARY})
    wait_until(lambda: " key=alice client=127.0.0.1 route='POST /v1/chat/completions' model=echo status=200" in served.log("api_requests"))
    written = served.output + "".join(path.read_text() for path in (served.folder / "logs").iterdir() if path.is_file())
    for secret in [CANARY, *secrets.values()]:
        assert secret not in written


def test_keys_added_and_revoked_are_followed_by_the_running_server(server, file):
    secret, _ = file.add("new")
    wait_until(lambda: chat(server, secret).status_code == 200, 10, "the new key")
    file.revoke("new")
    wait_until(lambda: chat(server, secret).status_code == 401, 10, "the end of the revoked key")


def test_a_file_that_others_may_read_changes_nothing_and_is_told(served, file, secrets):
    file.path.chmod(0o644)
    try:
        wait_until(lambda: chat(served, secrets["alice"]).status_code == 200 and "The keys stay as they were" in served.log("app"), 10)
        assert chat(served, "wrong").status_code == 401
    finally:
        file.path.chmod(0o600)


def test_a_thousand_wrong_keys_do_not_hold_up_a_right_one(server, secrets):
    with server.http() as http:
        for number in range(1000):
            assert http.get("/v1/models", headers={"x-api-key": f"wrong {number}"}).status_code == 401
            if number % 100 == 0:
                assert http.get("/v1/models", headers={"x-api-key": secrets["alice"]}).status_code == 200


# A list of models


@pytest.fixture(scope="module")
def two(tmp_path_factory, model_path):
    """Two models, of which a key sees one, by its name or by its alias."""
    folder = tmp_path_factory.mktemp("models")
    for name in ("one", "two"):
        (folder / f"{name}.gguf").symlink_to(model_path)
    (folder / "models.toml").write_text('[two]\naliases = ["deux"]\n')
    keys = KeyFile(folder / "keys.json")
    secrets = {
        "all": keys.add("all", scopes=["admin"])[0],
        "one": keys.add("one", models=["one"])[0],
        "deux": keys.add("deux", models=["deux"])[0],
        "watch": keys.add("watch", models=["one"], scopes=["inference", "monitor"])[0],
    }
    settings = {"MODELS_DIR": folder, "DEFAULT_MODEL": "one", "CONTEXT_LENGTH": 256, "MAX_PARALLEL_SEQUENCES": 2}
    with Server(disposable=True, API_KEYS_FILE=keys.path, key=secrets["all"], **settings) as running:
        yield running, secrets


def listed(server: Server, key: str) -> list[str]:
    return [model["id"] for model in call(server, "GET", "/v1/models", key).json()["data"]]


def test_a_key_sees_only_its_models(two):
    server, secrets = two
    assert {who: listed(server, secret) for who, secret in secrets.items()} == {
        "all": ["one", "two"],
        "one": ["one"],
        "deux": ["two"],
        "watch": ["one"],
    }


@pytest.mark.parametrize("name", ["two", "deux"])
def test_a_model_that_a_key_may_not_see_is_as_if_it_were_not_there(two, name):
    server, secrets = two
    hidden = chat(server, secrets["one"], model=name)
    absent = chat(server, secrets["one"], model="none")
    assert code(hidden) == code(absent) == (404, "model_not_found")
    assert hidden.json()["error"]["message"].replace(name, "none") == absent.json()["error"]["message"]
    assert "two" not in hidden.json()["error"]["message"].replace(f"'{name}'", "")
    assert code(call(server, "GET", f"/v1/models/{name}", secrets["one"])) == (404, "model_not_found")
    states = {model["name"]: model["state"] for model in server.status()["models"]}
    assert states == {"one": "ready", "two": "available"}, "it was not loaded for one who may not ask it"


def test_a_key_asks_its_model_and_no_other_by_leaving_the_name_out(two):
    server, secrets = two
    assert chat(server, secrets["one"]).status_code == 200
    assert code(chat(server, secrets["deux"])) == (404, "model_not_found")  # the default model is not its own


def test_a_key_that_watches_sees_the_figures_of_its_models_and_no_others(two):
    server, secrets = two

    def figures(who: str) -> str:
        return call(server, "GET", "/metrics", secrets[who]).text

    def status(who: str) -> dict:
        return call(server, "GET", "/v1/system/status", secrets[who]).json()

    assert chat(server, secrets["all"], model="one").status_code == 200
    assert [model["name"] for model in status("watch")["models"]] == ["one"]
    assert status("watch")["default_model"] == "one"
    assert {use["model"] for use in status("watch")["processes"]} == {None, "one"}
    assert chat(server, secrets["all"], model="two").status_code == 200
    assert status("all")["requests"]["kv_total_tokens"] > status("watch")["requests"]["kv_total_tokens"] == 0
    wait_until(lambda: {use["model"] for use in status("watch")["processes"]} == {None}, what="the end of the process of one")
    for name in ('model="two"', 'model_name="two"'):
        wait_until(lambda name=name: name in figures("all"), what=name)
        assert name not in figures("watch")
    seen = figures("watch")
    assert 'llm_requests_total{model="one"' in seen
    assert "llm_machine_memory_bytes " in seen
    assert "two" not in re.sub(r"^# .*$", "", seen, flags=re.MULTILINE)


# One key, and none


def test_one_key_by_a_setting_may_everything(tmp_path):
    path = tmp_path / "key"
    path.write_text("s3cret\n")
    path.chmod(0o600)
    with InProcess(API_KEY_FILE=path, key="s3cret", METRICS_REQUIRE_KEY="false") as server:
        assert call(server, "GET", "/metrics").status_code == 200
        assert call(server, "GET", "/v1/system/status").status_code == 401
        assert chat(server, None).status_code == chat(server, "none").status_code == 401
        assert chat(server, "s3cret").status_code == 200
        assert call(server, "POST", "/v1/models/unload", "s3cret", json={"model_name": "echo"}).status_code == 200


def test_a_runner_does_not_get_the_key_in_its_environment():
    with Server(INFERENCE_ENGINE="echo", disposable=True, API_KEY="s3cret-canary", key="s3cret-canary") as server:
        (runner,) = server.pids("runner")
        environ = psutil.Process(runner).environ()
        assert environ.keys() & {"PATH", "HOME"}, "it can be read"
        assert "s3cret-canary" not in str(environ)
        wait_until(lambda: "key=API_KEY " in server.log("api_requests"), what="the log's line")
        assert "Authorization: Bearer YOUR-KEY" in wait_until(lambda: "Ready:" in server.output and server.output)


@pytest.fixture(scope="module")
def open_server():
    with InProcess() as running:
        yield running


def test_without_keys_whoever_is_at_this_machine_may_load_and_ask_models(open_server):
    assert chat(open_server, None).status_code == chat(open_server, "any").status_code == 200
    assert call(open_server, "POST", "/v1/models/unload", json={"model_name": "echo"}).status_code == 200
    assert call(open_server, "POST", "/v1/models/load", json={"model_name": "echo"}).status_code == 200


@pytest.mark.parametrize(("method", "path"), ADMIN)
def test_without_keys_nobody_changes_anything_through_a_proxy_or_from_a_page(open_server, method, path):
    assert code(call(open_server, method, path, headers={**open_server.operator, "X-Forwarded-For": "203.0.113.1"})) == (
        403,
        "operator_only",
    )
    page = call(open_server, method, path, headers={**open_server.operator, "Origin": "https://evil.example"})
    assert code(page) in ((403, "operator_only"), (403, "origin_not_allowed"))
