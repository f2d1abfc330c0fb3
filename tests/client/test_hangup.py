"""A client that hangs up is noticed, over plain TCP, Unix sockets and TLS, without a wait and without a byte lost."""

import contextlib
import importlib.util
import select
import socket
import ssl
import struct

import pytest

from src.client import hangup
from src.client.hangup import has_hung_up
from tests.support.certificate import make_certificate
from tests.support.server import wait_until

pytestmark = pytest.mark.macos

POLLRDHUP = getattr(select, "POLLRDHUP", 0)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    return make_certificate(tmp_path_factory.mktemp("tls"))


@contextlib.contextmanager
def tcp():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        its = socket.create_connection(listener.getsockname())
        ours, _ = listener.accept()
    with ours, its:
        yield ours, its


@pytest.fixture(params=["tcp", "unix", ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=str)
def ends(request, certificate):
    """The server's end and the client's, and the plain connection below the client's."""
    if request.param == "unix":
        ours, its = socket.socketpair()
        with ours, its:
            yield ours, its, its
        return
    with tcp() as (ours, its):
        if request.param == "tcp":
            yield ours, its, its
            return
        server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        server.load_cert_chain(*certificate)
        client = ssl.create_default_context(cafile=str(certificate[0]))
        client.minimum_version = client.maximum_version = request.param
        plain = its.dup()
        ours.settimeout(10)
        its.settimeout(0)
        ours_tls = server.wrap_socket(ours, server_side=True, do_handshake_on_connect=False)
        its_tls = client.wrap_socket(its, server_hostname="localhost", do_handshake_on_connect=False)
        with ours_tls, its_tls, plain:
            shake_hands(ours_tls, its_tls)
            yield ours_tls, its_tls, plain


def shake_hands(ours: ssl.SSLSocket, its: ssl.SSLSocket) -> None:
    ours.settimeout(0)
    todo = {ours, its}

    def done() -> bool:
        for end in list(todo):
            with contextlib.suppress(ssl.SSLWantReadError):
                end.do_handshake()
                todo.discard(end)
        return not todo

    wait_until(done, what="a handshake")
    with contextlib.suppress(ssl.SSLWantReadError):
        its.recv(1)  # TLS 1.3's tickets
    for end in (ours, its):
        end.settimeout(10)


def test_a_client_that_waits_is_there(ends):
    ours, _, _ = ends
    assert not has_hung_up(ours)


def test_a_client_that_has_closed_is_gone(ends):
    ours, its, plain = ends
    its.close()
    plain.close()
    wait_until(lambda: has_hung_up(ours), 5, "the hang-up's being noticed")


def test_a_half_close_counts_as_hanging_up(ends):
    ours, _, plain = ends
    plain.shutdown(socket.SHUT_WR)
    wait_until(lambda: has_hung_up(ours), 5, "the hang-up's being noticed")


def test_the_next_request_is_no_hang_up_and_stays_unread(ends):
    ours, its, _ = ends
    its.sendall(b"GET /health HTTP/1.1\r\n")
    for _ in range(20):
        assert not has_hung_up(ours)
    assert ours.recv(100) == b"GET /health HTTP/1.1\r\n"
    assert not has_hung_up(ours)


def test_a_tls_farewell_before_the_close_does_not_hide_it(ends):
    ours, its, plain = ends
    if isinstance(its, ssl.SSLSocket):
        its.settimeout(0)
        with contextlib.suppress(ssl.SSLError):  # it does not wait for the server's
            its.unwrap()
    plain.shutdown(socket.SHUT_WR)
    wait_until(lambda: has_hung_up(ours), 5, "the hang-up's being noticed")


def test_a_reset_is_a_hang_up():
    with tcp() as (ours, its):
        its.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        its.close()
        wait_until(lambda: has_hung_up(ours), 5, "the reset's being noticed")


class MacPoll:
    """XNU's: there is no POLLRDHUP, the end of the other side is POLLHUP, and nothing is reported that was not asked for."""

    def __init__(self) -> None:
        self._poll = select.poll()
        self._asked: dict[int, int] = {}

    def register(self, client: socket.socket, asked: int) -> None:
        assert not asked & POLLRDHUP, "macOS has none"
        self._asked[client.fileno()] = asked
        self._poll.register(client, select.POLLIN | POLLRDHUP)

    def poll(self, timeout: int) -> list[tuple[int, int]]:
        found = [(fd, flags & ~POLLRDHUP | (select.POLLHUP if flags & POLLRDHUP else 0)) for fd, flags in self._poll.poll(timeout)]
        return [(fd, flags & self._asked[fd]) for fd, flags in found if flags & self._asked[fd]]


@pytest.fixture
def on_a_mac(monkeypatch):
    """The module as it is where select has no POLLRDHUP."""
    monkeypatch.delattr(select, "POLLRDHUP", raising=False)
    spec = importlib.util.spec_from_file_location("hangup_on_a_mac", hangup.__file__)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "_kernel_poll", MacPoll)
    return module


@pytest.mark.skipif(not POLLRDHUP, reason="imitates macOS by what Linux reports")
def test_macos_tells_of_a_half_close_where_it_is_asked_to(ends, on_a_mac):
    ours, its, plain = ends
    assert not on_a_mac.has_hung_up(ours)
    its.sendall(b"GET")
    assert not on_a_mac.has_hung_up(ours)
    assert ours.recv(10) == b"GET"
    plain.shutdown(socket.SHUT_WR)
    wait_until(lambda: on_a_mac.has_hung_up(ours), 5, "the hang-up's being noticed")
