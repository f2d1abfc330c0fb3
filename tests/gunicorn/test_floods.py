"""More connections than a worker takes, from one address: others are answered all the same."""

import contextlib
import resource
import socket
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from src.keys import KeyFile
from tests.support.certificate import make_certificate
from tests.support.raw_http import connect, post, read_all
from tests.support.server import Server, wait_until

pytestmark = pytest.mark.slow

SILENT = 2100  # more than twice WORKER_CONNECTIONS
SOON = 5  # seconds: it takes a tenth of that, and without the guard more than the HEADER_TIMEOUT of 10
HELLO = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 4}


@pytest.fixture(scope="module")
def descriptors():
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    if before[1] != resource.RLIM_INFINITY and before[1] < 4096:
        pytest.skip("needs 4096 descriptors")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(before[0], 4096), before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@contextlib.contextmanager
def silent(port: int, number: int = SILENT, address: str = "127.0.0.1") -> Iterator[list[socket.socket]]:
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(socket.socket()) for _ in range(number)]
        for client in clients:
            client.setblocking(False)
            client.connect_ex((address, port))
        yield clients


@pytest.mark.usefixtures("descriptors")
@pytest.mark.parametrize("secured", [False, True], ids=["http", "https"])
def test_silent_connections_keep_nobody_from_an_answer(tmp_path, secured):
    secret, _ = (file := KeyFile(tmp_path / "keys.json")).add("alice")
    tls = dict(zip(("TLS_CERTFILE", "TLS_KEYFILE"), make_certificate(tmp_path), strict=True)) if secured else {}
    headers = {"Authorization": f"Bearer {secret}"}
    with (
        Server(INFERENCE_ENGINE="echo", disposable=True, key=secret, API_KEYS_FILE=file.path, **tls) as server,
        server.http(headers=headers) as opened,
    ):
        assert opened.post("/v1/chat/completions", json=HELLO).status_code == 200
        with silent(server.port):
            for _ in range(3):
                began = time.monotonic()
                with server.http(headers=headers) as http:
                    assert http.post("/v1/chat/completions", json=HELLO).status_code == 200
                    answered = time.monotonic()
                with server.http() as http:
                    assert http.get("/health").status_code == 200
                assert max(answered - began, time.monotonic() - answered) < SOON


def test_health_has_a_socket_of_its_own_which_is_answered_when_the_others_are_full():
    with (
        tempfile.TemporaryDirectory(prefix="t-") as short,  # pytest's own folders are too long for a socket's path
        Server(INFERENCE_ENGINE="echo", disposable=True, WORKERS=2, WORKER_CONNECTIONS=2, RUN_DIR=Path(short, "run")) as server,
    ):
        path = Path(short, "run", "health.sock")
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        with (
            httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), base_url="http://localhost") as http,
            contextlib.ExitStack() as stack,
        ):
            for _ in range(8):  # all places of both workers, and more, with requests that do not end
                stack.enter_context(connect(server.port)).sendall(post("/v1/completions", b"{", framing="Content-Length: 9"))
            assert http.get("/health").json()["status"] == "ok"


def test_one_address_has_as_many_connections_as_the_setting_allows():
    own = own_address()
    settings = {"HOST": "0.0.0.0", "ALLOW_UNAUTHENTICATED": "true", "MAX_CONNECTIONS_PER_ADDRESS": 3, "ALLOWED_HOSTS": "*"}
    with Server(INFERENCE_ENGINE="echo", ECHO_STEP_MS=50, disposable=True, **settings) as server, contextlib.ExitStack() as stack:
        url = f"http://{own}:{server.port}"
        body = {"prompt": "x", "ignore_eos": True, "max_tokens": 500, "stream": True}
        for _ in range(3):
            response = stack.enter_context(httpx.stream("POST", f"{url}/v1/completions", json=body))
            assert response.status_code == 200
        with socket.create_connection((own, server.port)) as client:
            client.settimeout(10)
            answer = read_all(client)
        assert answer.startswith(b"HTTP/1.1 429 ")
        assert b"MAX_CONNECTIONS_PER_ADDRESS" in answer
        assert ok(server.url), "this machine has no such bound"
        response.close()
        wait_until(lambda: ok(url), 10, "the place")


def ok(url: str) -> bool:
    with contextlib.suppress(httpx.TransportError):
        return httpx.get(f"{url}/health").status_code == 200
    return False


def own_address() -> str:
    """Of this machine, but not a loopback one."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing
        except OSError:
            pytest.skip("needs a network")
        return probe.getsockname()[0]
