"""https by Gunicorn: with a certificate made here, curl's and OpenAI's ways, streams, clients that leave, and clients that speak no TLS."""

import contextlib
import socket
import ssl
import time
import uuid

import httpx
import pytest

from tests.support.certificate import make_certificate
from tests.support.server import Server, wait_until

pytestmark = pytest.mark.slow

CHAT = {"messages": [{"role": "user", "content": "hello"}]}
ENDLESS = {**CHAT, "max_tokens": 10_000, "ignore_eos": True}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return make_certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def server(files):
    settings = {"API_KEY": "k", "ECHO_STEP_MS": 5, "CONTEXT_LENGTH": 65_536, "RESUME_SECONDS": 1}
    with Server(INFERENCE_ENGINE="echo", TLS_CERTFILE=files[0], TLS_KEYFILE=files[1], key="k", **settings) as running:
        yield running


def running(server: Server) -> int:
    return server.status()["requests"]["running"]


def test_openais_client_gets_plain_and_streamed_answers(server):
    with server.client() as client:
        assert client.chat.completions.create(model="echo", **CHAT).choices[0].message.content == "user: hello\n"
        stream = client.chat.completions.create(model="echo", stream=True, **CHAT)
        assert "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices) == "user: hello\n"


def test_the_banner_tells_the_address_with_https(server):
    assert f"Ready: https://127.0.0.1:{server.port}/v1" in wait_until(lambda: "Ready:" in server.output and server.output)


def test_whoever_does_not_know_the_certificate_is_warned(server):
    with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
        httpx.get(server.url + "/health")


def test_old_versions_of_tls_are_refused(server):
    context = ssl.create_default_context(cafile=server.environ["TLS_CERTFILE"])
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection, pytest.raises((ssl.SSLError, OSError)):
        context.wrap_socket(connection, server_hostname="localhost").close()


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("farewell", [True, False], ids=["with a TLS farewell", "by closing"])
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("kept", [True, False], ids=["with an Idempotency-Key", "without"])
def test_a_client_that_leaves_ends_its_request(server, stream, farewell, version, kept):
    """The answer would take 50 seconds. One that is kept ends RESUME_SECONDS later."""
    context = ssl.create_default_context(cafile=server.environ["TLS_CERTFILE"])
    context.minimum_version = context.maximum_version = version
    body = httpx.Request("POST", "http://x", json={**ENDLESS, "stream": stream}).content
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nx-api-key: k\r\nContent-Length: {len(body)}\r\n"
    if kept:
        head += f"Idempotency-Key: {uuid.uuid4().hex}\r\n"
    with context.wrap_socket(socket.create_connection(("127.0.0.1", server.port), timeout=10), server_hostname="localhost") as connection:
        connection.sendall(f"{head}Content-Type: application/json\r\n\r\n".encode() + body)
        wait_until(lambda: running(server) == 1, 20, "its start")
        if farewell:
            connection.settimeout(0.01)
            with contextlib.suppress(OSError):  # it does not wait for the server's
                connection.unwrap()
    wait_until(lambda: running(server) == 0, 20, "its end")


def test_clients_that_speak_no_tls_leave_no_traceback_and_no_connection(server):
    (gateway,) = server.pids("gateway")
    for data in (b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n", b"\x16\x03\x01\xff\xff", b"", bytes(range(256))):
        # The server may have closed it by then.
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(4096):
                pass
    assert httpx.get(server.url + "/health", verify=server.trusted).status_code == 200
    assert server.pids("gateway") == [gateway]
    assert "Traceback" not in server.output + server.log("errors")


def test_a_handshake_that_never_comes_is_given_up(server):
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        began = time.monotonic()
        assert connection.recv(1) == b""
        assert time.monotonic() - began > 5


def test_https_and_keys_on_an_address_of_other_machines(files):
    settings = {"HOST": "0.0.0.0", "TLS_CERTFILE": files[0], "TLS_KEYFILE": files[1], "API_KEY": "k"}
    with Server(INFERENCE_ENGINE="echo", key="k", **settings) as server, server.client() as client:
        assert client.models.list().data[0].id == "echo"


@pytest.fixture(scope="module")
def impatient(files):
    settings = {"TLS_CERTFILE": files[0], "TLS_KEYFILE": files[1], "SEND_TIMEOUT": 2, "HEADER_TIMEOUT": 2, "CONTEXT_LENGTH": 65_536}
    with Server(INFERENCE_ENGINE="echo", ECHO_STEP_MS=1, disposable=True, **settings) as running:
        yield running


@contextlib.contextmanager
def spoken_to(server):
    plain = socket.socket()
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    plain.settimeout(30)
    plain.connect(("127.0.0.1", server.port))
    context = ssl.create_default_context(cafile=server.environ["TLS_CERTFILE"])
    with context.wrap_socket(plain, server_hostname="localhost") as client:
        yield client


def test_who_reads_nothing_over_tls_is_cut_off_too(impatient):
    body = b'{"prompt": "' + b"x" * 20_000 + b'", "ignore_eos": true, "stream": true}'
    head = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
    with spoken_to(impatient) as client:
        client.sendall(head + body)
        wait_until(lambda: impatient.status()["requests"]["running"] == 1)
        wait_until(lambda: impatient.status()["requests"]["running"] == 0, timeout=20)
        wait_until(lambda: "error=client_stalled" in impatient.log("api_requests"))


def test_who_sends_half_a_head_over_tls_is_told(impatient):
    with spoken_to(impatient) as client:
        client.sendall(b"GET /health HTTP/1.1\r\nHost: ")
        assert b"request_header_timeout" in client.recv(4096)
