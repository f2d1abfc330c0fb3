"""Without keys: what needs the operator's token, who can read it, and who is not the operator with it or without."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import httpx
import pytest

from src import operator_token
from src.api.app import create_app
from src.errors import SettingsError
from src.settings import ROOT, Settings
from tests.support.server import Server, wait_until

LOAD, UNLOAD, SWITCH = (("POST", f"/v1/models/{act}") for act in ("load", "unload", "switch"))
WITHOUT_TOKEN = {LOAD, UNLOAD, SWITCH}
LEVEL = "/v1/admin/log-level"


def admin_routes() -> set[tuple[str, str]]:
    app = create_app(Settings())
    found = set()
    for rule in app.url_map.iter_rules():
        if getattr(app.view_functions[rule.endpoint], "scope", "") == "admin":
            found |= {(method, rule.rule.replace("<name>", "x")) for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}}
    return found


WITH_TOKEN = sorted(admin_routes() - WITHOUT_TOKEN)


@pytest.fixture(scope="module")
def server():
    with Server(INFERENCE_ENGINE="echo", disposable=True) as running:
        yield running


def call(server: Server, method: str, path: str, **options: object) -> httpx.Response:
    return httpx.request(method, server.url + path, timeout=30, **options)  # type: ignore[arg-type]


def code(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, response.json()["error"]["code"]


def test_there_are_routes_to_hold():
    assert admin_routes() > WITHOUT_TOKEN
    assert {("POST", "/v1/models/download"), ("POST", "/v1/admin/keys"), ("POST", LEVEL)} <= set(WITH_TOKEN)


@pytest.mark.parametrize(("method", "path"), WITH_TOKEN)
@pytest.mark.parametrize("presented", [None, "none", "", "x" * 43, "\xff"])
def test_what_fetches_makes_keys_or_changes_logs_is_refused_without_the_token(server, method, path, presented):
    headers = {} if presented is None else {"Authorization": f"Bearer {presented}".strip().encode("latin-1")}
    refused = call(server, method, path, headers=headers)
    assert code(refused) == (403, "operator_only")
    assert call(server, method, path, headers=server.operator).status_code != 403


def test_the_refusal_says_where_the_token_lies_and_a_curl_line_that_works(server):
    refused = call(server, "GET", LEVEL).json()["error"]["message"]
    assert refused.startswith("Without keys, this needs the operator's token")
    argument = refused.partition("With curl: ")[2].partition(". ADMIN_FROM_LOOPBACK=true")[0]
    command = f"curl -sS {argument} {server.url}{LEVEL}"
    assert subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True).stdout == '{"level":"INFO"}'


def test_the_token_is_random_and_for_the_servers_user_alone(server):
    path = operator_token.find("", server.port)
    found = path.stat()
    assert (found.st_mode & 0o777, found.st_uid, path.parent.stat().st_mode & 0o777) == (0o600, os.geteuid(), 0o700)
    assert len(path.read_text().strip()) == 43, "256 bits"
    written = server.output + "".join(file.read_text() for file in (server.folder / "logs").iterdir() if file.is_file())
    assert path.read_text().strip() not in written


def test_models_that_lie_in_the_folder_are_loaded_unloaded_and_switched_without_it(server):
    assert call(server, *UNLOAD, json={"model_name": "echo"}).status_code == 200
    assert call(server, *LOAD, json={"model_name": "echo"}).status_code == 200
    assert code(call(server, *SWITCH, json={"model_name": "none"})) == (404, "model_not_found")


def test_a_load_of_a_model_that_is_not_in_the_folder_fetches_nothing(server):
    assert code(call(server, *LOAD, json={"model_name": "org/model"})) == (404, "model_not_found")


def test_the_script_prints_the_token_of_the_server_at_the_port(server):
    def printed(**environ: object) -> subprocess.CompletedProcess[str]:
        settings = {**os.environ, **{name: str(value) for name, value in environ.items()}}
        return subprocess.run([sys.executable, "scripts/operator_token.py"], cwd=ROOT, env=settings, capture_output=True, text=True)

    found = printed(PORT=server.port)
    assert f"Bearer {found.stdout.strip()}" == server.operator["Authorization"]
    absent = printed(PORT=1)
    assert (absent.returncode, absent.stdout) == (1, "")
    assert "No server of this user listens on PORT=1" in absent.stderr


@pytest.mark.slow
def test_each_start_in_a_folder_of_its_own_makes_another_token():
    with tempfile.TemporaryDirectory(prefix="t-") as short:
        tokens = []
        for _ in range(2):
            with Server(INFERENCE_ENGINE="echo", RUN_DIR=Path(short, "run"), SHUTDOWN_GRACE_SECONDS=0) as one:
                tokens.append(one.operator)
                assert call(one, "GET", LEVEL, headers=tokens[0]).status_code == (200 if len(tokens) == 1 else 403)
                assert call(one, "GET", LEVEL, headers=one.operator).status_code == 200


def test_a_setting_opens_everything_to_this_machine_and_to_nobody_else():
    with Server(INFERENCE_ENGINE="echo", disposable=True, ADMIN_FROM_LOOPBACK="true") as open_server:
        assert call(open_server, "GET", LEVEL).status_code == 200
        assert code(call(open_server, "GET", LEVEL, headers={"X-Forwarded-For": "203.0.113.1"})) == (403, "operator_only")


# Who is not the operator


def over_http_1_0(server: Server, method: str, path: str, headers: dict[str, str]) -> bytes:
    """As nginx passes a request on unless it is told otherwise: no header tells of it."""
    head = "".join(f"{name}: {value}\r\n" for name, value in {"Host": f"127.0.0.1:{server.port}", **headers}.items())
    request = f"{method} {path} HTTP/1.0\r\n{head}Content-Length: 0\r\n\r\n"
    done = subprocess.run(
        [sys.executable, "-c", SEND, str(server.port)], input=request.encode(), capture_output=True, check=True, timeout=30
    )
    return done.stdout


SEND = """
import socket, sys
with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as connection:
    connection.sendall(sys.stdin.buffer.read())
    while data := connection.recv(65536):
        sys.stdout.buffer.write(data)
"""


@pytest.mark.parametrize(("method", "path"), sorted(admin_routes()))
def test_who_speaks_http_1_0_comes_through_a_proxy(server, method, path):
    answer = over_http_1_0(server, method, path, server.operator)
    assert answer.split(b" ", 2)[1] == b"403"
    assert b"operator_only" in answer


def test_text_may_be_asked_for_by_http_1_0(server):
    assert over_http_1_0(server, "GET", "/v1/models", {}).split(b" ", 2)[1] == b"200"


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/models/unload", LEVEL])
def test_a_page_of_another_site_that_hides_its_origin_is_refused(server, site, path):
    refused = call(server, "POST", path, headers={**server.operator, "Sec-Fetch-Site": site}, json={})
    assert code(refused) == (403, "origin_not_allowed")


@pytest.mark.parametrize("site", ["same-origin", "none"])
def test_a_page_of_this_server_is_not(server, site):
    body = {"prompt": "x", "max_tokens": 1}
    assert call(server, "POST", "/v1/completions", headers={"Sec-Fetch-Site": site}, json=body).status_code == 200


def test_a_page_of_another_site_may_look_but_not_at_what_is_the_operators(server):
    headers = {**server.operator, "Sec-Fetch-Site": "cross-site"}
    assert call(server, "GET", "/v1/models", headers=headers).status_code == 200
    assert code(call(server, "GET", LEVEL, headers=headers)) == (403, "operator_only")


# Finding it


def folder_of(tmp_path: Path, name: str, port: int) -> Path:
    folder = tmp_path / f"inference-{name}"
    folder.mkdir(mode=0o700)
    operator_token.make(str(folder), port)
    return folder


def test_it_is_looked_for_in_private_folders_of_this_user_only(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folder = folder_of(tmp_path, "a", 8001)
    assert operator_token.find("", 8001) == folder / "operator_token"
    for port in (8002, 1):
        with pytest.raises(SettingsError, match=f"No server of this user listens on PORT={port}"):
            operator_token.find("", port)
    folder.chmod(0o755)
    with pytest.raises(SettingsError):
        operator_token.find("", 8001)
    elsewhere = tmp_path / "elsewhere"
    shutil.move(folder, elsewhere)
    elsewhere.chmod(0o700)
    folder.symlink_to(elsewhere)
    with pytest.raises(SettingsError):
        operator_token.find("", 8001)
    assert operator_token.find(str(elsewhere), 8001) == elsewhere / "operator_token"


def test_of_two_folders_the_later_one_is_the_running_servers(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folders = [folder_of(tmp_path, name, 8001) for name in ("b", "a")]
    os.utime(folders[0] / "operator_token", (1, 1))
    assert operator_token.find("", 8001).parent == folders[1]


def test_no_file_no_token(tmp_path):
    assert not operator_token.fits(str(tmp_path), "")
    (tmp_path / "operator_token").touch()
    assert not operator_token.fits(str(tmp_path), "")


def test_it_holds_after_a_reload(server):
    os.kill(server.process.pid, 1)
    wait_until(lambda: "Handling signal: hup" in server.output)
    wait_until(lambda: call(server, "GET", LEVEL, headers=server.operator).status_code == 200)
