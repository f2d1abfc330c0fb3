"""Whatever comes over the sockets between the processes: the connection is closed and logged once, and the processes go on."""

import contextlib
import os
import socket
import threading
import time
from pathlib import Path

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from src.client.exchange import Exchange
from src.errors import EngineUnavailable, ServiceError
from src.protocol import (
    MAX_LINE_BYTES,
    AskStats,
    AskStatus,
    Delta,
    Generate,
    ManagerEvent,
    ManagerRequest,
    ProtocolError,
    RunnerEvent,
    RunnerReport,
    RunnerRequest,
    RunnerStats,
    ServiceStatus,
    Telemetry,
    TextPrompt,
    decode,
    encode,
)
from src.sampling import SamplingParams
from tests.support.fuzz import EXAMPLES
from tests.support.server import Server, wait_until
from tests.test_protocol import MESSAGES

KINDS = (RunnerRequest, RunnerEvent, RunnerReport, ManagerRequest, ManagerEvent, ManagerRequest | Telemetry)
LINES = [encode(message) for message, _ in MESSAGES]
REQUEST = Generate(prompts=[TextPrompt(text="x")], sampling=SamplingParams(seed=1))
BAD = {
    "an end of line": b"\n",
    "another protocol": b"GET / HTTP/1.1\r\n\r\n",
    "bytes": bytes(range(256)) * 10 + b"\n",
    "half a message and the end": encode(AskStatus())[:-4],
    "a length": b"\xff\xff\xff\xff" * 4 + b"\n",
    "nested too deep": b'{"kind":"Generate","prompts":' + b"[" * 200_000 + b"\n",
    "nested too deep where anything may be": b'{"kind":"Tokenize","prompt":{"kind":"ChatPrompt","messages":[{"a":' + b"[" * 200_000 + b"\n",
    "an integer of 400 digits": b'{"kind":"Detokenize","tokens":[' + b"9" * 400 + b"]}\n",
    "half a surrogate": b'{"kind":"Resolve","model":"\\ud800"}\n',
    "an unknown kind": b'{"kind":"Shutdown"}\n',
    "of the other socket": b'{"kind":"Delta","text":"x"}\n',
    "an unknown field": b'{"kind":"Resolve","model":null,"epoch":7}\n',
}


@st.composite
def spoiled_lines(draw: st.DrawFn) -> bytes:
    line = bytearray(draw(st.sampled_from(LINES)))
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, len(line)))
        piece = draw(
            st.binary(max_size=4) | st.sampled_from([b"9" * 30, b"[" * 5000, b'"\\ud800"', b"null", b"-1", b"1e999", b"{}", b"NaN"])
        )
        line[place : place + draw(st.integers(0, 6))] = piece
    return bytes(line) + draw(st.sampled_from([b"", b"\n"]))


@settings(max_examples=10 * EXAMPLES, deadline=1000)
@given(line=spoiled_lines() | st.binary(max_size=80), kind=st.sampled_from(KINDS))
def test_any_line_is_a_message_or_a_protocol_error(line, kind):
    with contextlib.suppress(ProtocolError):
        decode(line, kind)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("r")
    os.chmod(run_dir, 0o700)
    with Server(INFERENCE_ENGINE="echo", RUN_DIR=run_dir, disposable=True) as server:
        wait_until(lambda: list(run_dir.glob("runner-*.sock")), what="a runner's socket")
        server.sockets = {"manager": run_dir / "manager.sock", "runner": next(run_dir.glob("runner-*.sock"))}
        yield server


def send(path: Path, *parts: bytes) -> bytes:
    """What comes back until the other side closes the connection."""
    with socket.socket(socket.AF_UNIX) as one:
        one.settimeout(20)
        one.connect(str(path))
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for part in parts:
                one.sendall(part)
            one.shutdown(socket.SHUT_WR)
            received = b""
            while data := one.recv(65536):
                received += data
            return received
    return b""


def alive(server: Server) -> None:
    """The next good question on each socket and the next request are answered, by the same processes."""
    assert isinstance(decode(send(server.sockets["runner"], encode(AskStats())), RunnerEvent), RunnerStats)
    assert isinstance(decode(send(server.sockets["manager"], encode(AskStatus())), ManagerEvent), ServiceStatus)
    body = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 3}
    assert httpx.post(f"{server.url}/v1/chat/completions", json=body, timeout=20).status_code == 200


@pytest.mark.parametrize("where", ["runner", "manager"])
@pytest.mark.parametrize("name", BAD)
def test_a_bad_message_closes_its_connection_and_is_logged_once(server, where, name):
    pids = server.pids("manager"), server.pids("runner")
    before = server.output.count("A connection was closed")
    said = send(server.sockets[where], BAD[name])
    refused = b'"kind":"Failed"' in said  # a good message that asks for what cannot be
    assert refused or not said
    wait_until(lambda: refused or server.output.count("A connection was closed") > before, 10, "the line in the log")
    alive(server)
    assert server.output.count("A connection was closed") == before + (not refused)
    assert (server.pids("manager"), server.pids("runner")) == pids
    assert "Traceback" not in server.output


@pytest.mark.parametrize("where", ["runner", "manager"])
def test_garbage_behind_a_good_message_harms_nobody(server, where):
    good = encode(REQUEST) if where == "runner" else encode(AskStatus())
    for garbage in (b"\xff" * 1000, b"[" * 100_000, good, b"\n\n\n"):
        send(server.sockets[where], good + garbage)
    alive(server)
    assert server.status()["models"][0]["stats"]["running"] == 0


def test_half_a_message_that_never_ends_holds_nobody_up(server):
    open_ = []
    for path in server.sockets.values():
        one = socket.socket(socket.AF_UNIX)
        one.connect(str(path))
        one.sendall(encode(REQUEST)[:-5])
        open_.append(one)
    alive(server)
    for one in open_:
        one.close()


def test_many_spoiled_messages_leave_the_processes_as_they_were(server):
    pids = server.pids("manager"), server.pids("runner")

    @settings(max_examples=EXAMPLES, deadline=5000)
    @given(line=spoiled_lines(), where=st.sampled_from(["runner", "manager"]))
    def try_all(line: bytes, where: str) -> None:
        if b'"Download"' not in line and b"Load" not in line and b"Switch" not in line:  # these may be good ones, and take long
            send(server.sockets[where], line)

    try_all()
    alive(server)
    assert (server.pids("manager"), server.pids("runner")) == pids
    assert "Traceback" not in server.output


class Liar:
    """A Unix socket that answers each request with what it was given, and closes."""

    def __init__(self, path: Path) -> None:
        self.path, self.answer = str(path), b""
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.path)
        self._listener.listen()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            one, _ = self._listener.accept()
            with one, contextlib.suppress(OSError):
                one.recv(65536)
                one.sendall(self.answer)


@pytest.fixture(scope="module")
def liar(tmp_path_factory) -> Liar:
    return Liar(tmp_path_factory.mktemp("l") / "liar.sock")


def ask(liar: Liar, answer: bytes, kind: object) -> None:
    liar.answer = answer
    exchange = Exchange(liar.path, AskStats(), time.monotonic() + 20)
    try:
        while True:
            exchange.receive(kind)
    finally:
        exchange.close()


def test_a_gateway_takes_any_answer_for_a_message_or_an_unavailable_engine(liar):
    @settings(max_examples=3 * EXAMPLES, deadline=5000)
    @given(answer=spoiled_lines() | st.binary(max_size=60), good=st.integers(0, 2), kind=st.sampled_from([RunnerEvent, ManagerEvent]))
    def try_all(answer: bytes, good: int, kind: object) -> None:
        with pytest.raises(ServiceError):  # at the end of the connection, if not before
            ask(liar, encode(Delta(text="x")) * good + answer, kind)

    try_all()


@pytest.mark.parametrize("name", BAD)
def test_a_gateway_refuses_what_is_no_event(liar, name):
    with pytest.raises(EngineUnavailable):
        ask(liar, BAD[name].replace(b'"kind":"Delta"', b'"kind":"Load"'), RunnerEvent)


def test_a_gateway_does_not_take_a_line_without_end_into_memory(liar):
    began = time.thread_time()
    with pytest.raises(EngineUnavailable, match="Invalid reply"):
        ask(liar, b"x" * (MAX_LINE_BYTES + (1 << 20)), RunnerEvent)
    assert time.thread_time() - began < 1, "what was looked through is not looked through again"
