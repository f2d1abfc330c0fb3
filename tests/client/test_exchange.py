"""Asking over a Unix socket: every answer is read whole, and every way in which none comes ends in an error of its own."""

import contextlib
import os
import socket
import struct
import threading
import time

import psutil
import pytest
from msgspec.structs import replace

from src.client import exchange as client
from src.client.exchange import Exchange, Generation
from src.errors import ClientGone, EngineUnavailable, ModelLoading, RequestTimeout, ServerShuttingDown, ServiceError
from src.protocol import (
    AskStats,
    Delta,
    Failed,
    Finished,
    Generate,
    ModelReady,
    RunnerEvent,
    ServiceStatus,
    Started,
    TextPrompt,
    encode,
)
from src.sampling import SamplingParams
from tests.support.peer import Peer, sends, soon, stays_silent, then_silent

pytestmark = pytest.mark.macos

HELLO = Delta(text="hello")
READY = ModelReady(model="m", socket="/nowhere/m.sock", engine="echo", fingerprint="fp_1")
STATUS = ServiceStatus(models=[], default_model=None, uptime_seconds=1, load_on_demand=True)
REQUEST = Generate(prompts=[TextPrompt(text="x")], sampling=SamplingParams(seed=1))
EVENTS = [
    Started(prompt_tokens=1, cached_tokens=0, queue_seconds=0),
    Delta(text="a"),
    Delta(text="b"),
    Finished(prompt_tokens=1, completion_tokens=2, cached_tokens=0),
]


@contextlib.contextmanager
def exchanging(peer: Peer, deadline: float | None = None, http: socket.socket | None = None):
    exchange = Exchange(peer.path, AskStats(), deadline or soon(), http)
    try:
        yield exchange
    finally:
        exchange.close()


def test_the_request_arrives_and_its_answer_comes_back(path):
    with Peer(path, sends(encode(HELLO))) as peer, exchanging(peer) as exchange:
        assert exchange.receive(RunnerEvent) == HELLO
    assert peer.requests == [AskStats()]


def test_messages_that_come_together_are_told_apart(path):
    with Peer(path, sends(b"".join(map(encode, EVENTS)))) as peer, exchanging(peer) as exchange:
        assert [exchange.receive(RunnerEvent) for _ in EVENTS] == EVENTS


def test_a_message_that_comes_by_the_byte_is_read_whole(path):
    with Peer(path, sends(*(bytes([byte]) for byte in encode(HELLO)))) as peer, exchanging(peer) as exchange:
        assert exchange.receive(RunnerEvent) == HELLO


def test_a_message_larger_than_any_buffer_is_read_whole(path):
    large = Delta(text="é" * 2_000_000)
    with Peer(path, sends(encode(large))) as peer, exchanging(peer) as exchange:
        assert exchange.receive(RunnerEvent) == large


def test_closing_is_seen_by_the_other_side(path):
    gone = threading.Event()

    def answer(connection: socket.socket) -> None:
        stays_silent(connection)
        gone.set()

    with Peer(path, answer) as peer:
        with exchanging(peer):
            assert not gone.is_set()
        assert gone.wait(10)


@pytest.mark.parametrize("data", [b"", encode(HELLO)[:-1], encode(HELLO)[:5]], ids=["at once", "before its end of line", "in a message"])
def test_a_connection_that_ends_early_means_that_the_engine_is_unavailable(path, data):
    with Peer(path, sends(data)) as peer, exchanging(peer) as exchange, pytest.raises(EngineUnavailable) as caught:
        exchange.receive(RunnerEvent)
    assert caught.value.retry_after == 1


def test_a_process_that_dies_before_it_takes_the_connection_is_unavailable_too(path):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        exchange = Exchange(str(path), AskStats(), soon())
    try:
        with pytest.raises(EngineUnavailable):
            exchange.receive(RunnerEvent)
    finally:
        exchange.close()


@pytest.mark.parametrize("line", [b"not json\n", encode(AskStats()), b"[" * 100_000 + b"\n"], ids=["text", "a request", "brackets"])
def test_an_answer_that_is_no_answer_means_that_the_engine_is_unavailable(path, line):
    with Peer(path, sends(line)) as peer, exchanging(peer) as exchange, pytest.raises(EngineUnavailable):
        exchange.receive(RunnerEvent)


def test_a_failure_is_raised_as_it_was_sent(path):
    failed = Failed.of(ModelLoading("wait", "model", retry_after=2))
    with Peer(path, sends(encode(failed))) as peer, exchanging(peer) as exchange, pytest.raises(ServiceError) as caught:
        exchange.receive(RunnerEvent)
    assert (caught.value.status, caught.value.code, caught.value.param, caught.value.retry_after) == (503, "model_loading", "model", 2)


def test_the_deadline_ends_a_wait(path):
    with Peer(path, stays_silent) as peer, exchanging(peer, time.monotonic() + 0.2) as exchange:
        began = time.monotonic()
        with pytest.raises(RequestTimeout):
            exchange.receive(RunnerEvent)
    assert 0.1 < time.monotonic() - began < 5


def test_a_deadline_that_is_over_ends_a_wait_at_once(path):
    with Peer(path, stays_silent) as peer, exchanging(peer, time.monotonic() - 1) as exchange, pytest.raises(RequestTimeout):
        exchange.receive(RunnerEvent)


def test_none_comes_after_a_silence_and_the_answer_after_it(path, monkeypatch):
    monkeypatch.setattr(client, "IDLE_SECONDS", 0.05)
    speak = threading.Event()

    def answer(connection: socket.socket) -> None:
        assert speak.wait(10)
        connection.sendall(encode(HELLO))

    with Peer(path, answer) as peer, exchanging(peer) as exchange:
        assert exchange.receive(RunnerEvent) is None
        assert exchange.receive(RunnerEvent) is None
        speak.set()
        assert next(event for event in iter(lambda: exchange.receive(RunnerEvent), 0) if event) == HELLO


def test_none_comes_while_a_message_is_only_half_there(path, monkeypatch):
    monkeypatch.setattr(client, "IDLE_SECONDS", 0.05)
    line, speak = encode(HELLO), threading.Event()

    def answer(connection: socket.socket) -> None:
        connection.sendall(line[:9])
        assert speak.wait(10)
        connection.sendall(line[9:])

    with Peer(path, answer) as peer, exchanging(peer) as exchange:
        assert exchange.receive(RunnerEvent) is None
        speak.set()
        assert next(event for event in iter(lambda: exchange.receive(RunnerEvent), 0) if event) == HELLO


def test_a_client_that_hangs_up_while_it_waits_is_noticed_at_once(path, http):
    ours, its = http
    began = time.monotonic()
    with Peer(path, then_silent(its.close)) as peer, exchanging(peer, http=ours) as exchange, pytest.raises(ClientGone):
        exchange.receive(RunnerEvent)
    assert time.monotonic() - began < 5


def test_a_client_that_has_hung_up_before_is_noticed_at_once(path, http):
    ours, its = http
    its.close()
    with Peer(path, stays_silent) as peer, exchanging(peer, http=ours) as exchange, pytest.raises(ClientGone):
        exchange.receive(RunnerEvent)


def test_a_half_close_counts_as_hanging_up(path, http):
    ours, its = http
    half_close = then_silent(lambda: its.shutdown(socket.SHUT_WR))
    with Peer(path, half_close) as peer, exchanging(peer, http=ours) as exchange, pytest.raises(ClientGone):
        exchange.receive(RunnerEvent)


def test_a_client_that_resets_its_connection_is_gone(path):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        its = socket.create_connection(listener.getsockname())
        ours, _ = listener.accept()
    its.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    with ours, Peer(path, then_silent(its.close)) as peer, exchanging(peer, http=ours) as exchange, pytest.raises(ClientGone):
        exchange.receive(RunnerEvent)


def test_a_clients_next_request_is_no_hang_up_and_stays_unread(path, http):
    ours, its = http
    its.sendall(b"GET /health HTTP/1.1\r\n")
    with Peer(path, sends(encode(HELLO))) as peer, exchanging(peer, http=ours) as exchange:
        assert exchange.receive(RunnerEvent) == HELLO
    assert ours.recv(100) == b"GET /health HTTP/1.1\r\n"


def test_a_clients_next_request_does_not_make_the_wait_a_busy_one(path, http, monkeypatch):
    monkeypatch.setattr(client, "IDLE_SECONDS", 0.5)
    ours, its = http
    its.sendall(b"GET /health HTTP/1.1\r\n")
    with Peer(path, stays_silent) as peer, exchanging(peer, http=ours) as exchange:
        used = time.thread_time()
        assert exchange.receive(RunnerEvent) is None
        assert time.thread_time() - used < 0.1


def test_the_next_exchange_for_the_same_client_watches_it_anew(path, http):
    ours, its = http
    its.sendall(b"G")
    with Peer(path, sends(encode(HELLO))) as peer, exchanging(peer, http=ours) as exchange:
        exchange.receive(RunnerEvent)
    assert ours.recv(1) == b"G"
    os.unlink(path)
    with Peer(path, then_silent(its.close)) as peer, exchanging(peer, http=ours) as exchange, pytest.raises(ClientGone):
        exchange.receive(RunnerEvent)


def test_an_abort_by_another_thread_raises_its_error_where_the_answer_is_awaited(path):
    error = ServerShuttingDown("stopping")

    def abort_all() -> None:
        for exchange in list(Exchange.open):
            exchange.abort(error)

    with Peer(path, then_silent(abort_all)) as peer, exchanging(peer) as exchange, pytest.raises(ServerShuttingDown) as caught:
        exchange.receive(RunnerEvent)
    assert caught.value is error


def test_an_abort_between_two_messages_is_raised_after_what_came_before(path):
    with Peer(path, then_silent(lambda: None)) as peer, exchanging(peer) as exchange:
        exchange.abort(ServerShuttingDown("stopping"))
        with pytest.raises(ServerShuttingDown):
            exchange.receive(RunnerEvent)


def test_an_abort_may_come_after_the_other_side_has_gone_or_the_exchange_is_closed(path):
    with Peer(path, sends()) as peer, exchanging(peer) as exchange:
        with pytest.raises(EngineUnavailable):
            exchange.receive(RunnerEvent)
        exchange.abort(ServerShuttingDown("stopping"))
        exchange.close()
        exchange.abort(ServerShuttingDown("stopping"))


def test_no_exchange_leaves_a_file_open_however_it_ends(path, http):
    ours, its = http
    its.close()
    before = psutil.Process().num_fds()
    for _ in range(20):
        with pytest.raises(FileNotFoundError):
            Exchange(str(path), AskStats(), soon())
    with Peer(path, stays_silent) as peer:
        for _ in range(20):
            with exchanging(peer, http=ours) as exchange, pytest.raises(ClientGone):
                exchange.receive(RunnerEvent)
    assert psutil.Process().num_fds() == before


def test_a_generation_gives_its_events_and_may_be_closed_twice(path):
    with Peer(path, sends(*map(encode, EVENTS))) as peer:
        generation = Generation(ModelReady(model="m", socket=peer.path, engine="echo", fingerprint="fp_1"), REQUEST, soon(), None)
        assert [generation.receive() for _ in EVENTS] == EVENTS
        generation.close()
        generation.close()
    assert peer.requests == [REQUEST]


def test_a_generation_of_a_runner_that_is_gone_is_unavailable():
    with pytest.raises(EngineUnavailable, match="model m cannot be reached") as caught:
        Generation(replace(READY, retry_after=7), REQUEST, soon(), None)
    assert caught.value.retry_after == 7


def test_who_lost_a_runner_is_told_how_long_the_last_one_took_to_be_ready(path):
    with Peer(path, sends()) as peer:
        generation = Generation(replace(READY, socket=peer.path, retry_after=7), REQUEST, soon(), None)
        with pytest.raises(EngineUnavailable) as caught:
            generation.receive()
        generation.close()
    assert caught.value.retry_after == 7
