"""A real runner process: it says when it can serve, serves its socket, and ends when it is told to or left alone."""

import contextlib
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

from src.client.exchange import Exchange
from src.errors import ServiceError
from src.protocol import (
    AskStats,
    Delta,
    Ended,
    Failed,
    Finished,
    Generate,
    Load,
    RunnerEvent,
    RunnerLoading,
    RunnerReady,
    RunnerReport,
    RunnerStats,
    Started,
    TextPrompt,
    decode,
    encode,
)
from src.protocol.launch import RunnerSpec
from src.sampling import SamplingParams
from src.settings import ROOT
from tests.support.server import wait_until

MAX_REQUESTS = 3


class Runner:
    """A process as the manager starts it: its report, its socket, its end."""

    def __init__(self, folder: Path, *, engine: str = "echo", model_path: str = "", step_ms: float = 0, slots: int = 2) -> None:
        folder.mkdir(exist_ok=True)
        # Stands for a library that prints.
        (folder / "sitecustomize.py").write_text('import atexit, os\natexit.register(os.write, 1, b"noise")\n')
        self.socket = str(folder / "runner.sock")
        options = {"model_path": model_path, "context_length": 1000, "max_sequences": slots, "step_delay": step_ms / 1000}
        spec = RunnerSpec(model="m", engine=engine, socket=self.socket, max_requests=MAX_REQUESTS, options=options)
        self.stderr = folder / "stderr"
        with self.stderr.open("wb") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "src.runner", msgspec.json.encode(spec).decode()],
                cwd=ROOT, env={**os.environ, "LOG_DIR": str(folder / "logs"), "PYTHONPATH": str(folder)},
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr,
            )  # fmt: skip
        self.stages = []
        while isinstance(report := decode(self.process.stdout.readline(), RunnerReport), RunnerLoading):
            self.stages.append(report.stage)
        self.report = report

    def exchange(self, request: object) -> Exchange:
        return Exchange(self.socket, request, time.monotonic() + 30)

    def stats(self) -> RunnerStats:
        with contextlib.closing(self.exchange(AskStats())) as exchange:
            return exchange.receive(RunnerEvent)

    def is_idle(self) -> bool:
        stats = self.stats().engine
        return (stats.running, stats.waiting, stats.kv_used) == (0, 0, 0)

    def becomes_idle(self) -> None:
        wait_until(self.is_idle, what="an idle runner")

    def __enter__(self) -> "Runner":
        return self

    def __exit__(self, *raised: object) -> None:
        self.process.stdin.close()
        try:
            self.process.wait(10)
        finally:
            self.process.kill()
            self.process.wait()
            self.process.stdout.close()


def generate(prompt: str = "hello", **fields: object) -> Generate:
    return Generate(prompts=[TextPrompt(text=prompt)], sampling=SamplingParams(seed=1), **fields)


def endless() -> Generate:
    """995 tokens: 5 seconds of work for a slow runner."""
    return Generate(prompts=[TextPrompt(text="hello")], sampling=SamplingParams(seed=1, ignore_eos=True))


def to_the_end(exchange: Exchange) -> list:
    events = []
    with contextlib.closing(exchange):
        while not events or not isinstance(events[-1], Finished):
            events.append(exchange.receive(RunnerEvent))
    return events


def text(events: list) -> str:
    return "".join(event.text for event in events if isinstance(event, Delta))


@pytest.fixture(scope="module")
def runner(tmp_path_factory):
    with Runner(tmp_path_factory.mktemp("runner")) as started:
        yield started


@pytest.fixture(scope="module")
def slow(tmp_path_factory):
    """A token every 5 ms, two requests computed at a time."""
    with Runner(tmp_path_factory.mktemp("slow"), step_ms=5) as started:
        yield started


@pytest.fixture
def own(tmp_path):
    """A slow runner for one test, which may end it."""
    with Runner(tmp_path, step_ms=5) as started:
        yield started


def test_a_runner_reports_what_it_has_loaded(runner):
    assert isinstance(runner.report, RunnerReady)
    assert (runner.report.context_length, runner.report.device, runner.report.engine_version) == (1000, "cpu", "-")
    assert runner.report.load_seconds < 30


def test_its_socket_is_for_its_own_user_alone(runner):
    assert stat.S_IMODE(os.stat(runner.socket).st_mode) == 0o600


def test_it_answers_a_request_and_ends_the_connection(runner):
    exchange = runner.exchange(generate())
    started, *deltas, ended, finished = to_the_end(exchange)
    assert isinstance(started, Started)
    assert started.prompt_tokens == 5
    assert text(deltas) == "hello"
    assert ended == Ended(reason="stop")
    assert (finished.prompt_tokens, finished.completion_tokens, finished.cached_tokens) == (5, 6, 0)


def test_it_answers_many_requests_at_once(slow):
    exchanges = [slow.exchange(generate(f"text {number}")) for number in range(MAX_REQUESTS)]
    assert [text(to_the_end(exchange)) for exchange in exchanges] == [f"text {number}" for number in range(MAX_REQUESTS)]


def test_it_tells_a_refused_request_why(runner):
    with contextlib.closing(runner.exchange(generate("x" * 1000))) as exchange, pytest.raises(ServiceError) as caught:
        exchange.receive(RunnerEvent)
    assert (caught.value.status, caught.value.code, caught.value.param) == (400, "context_length_exceeded", "prompt")


def test_its_stats_count_what_runs_waits_and_was_made(slow):
    slow.becomes_idle()
    before = slow.stats()
    exchanges = [slow.exchange(endless()) for _ in range(3)]
    wait_until(lambda: (slow.stats().engine.running, slow.stats().engine.waiting) == (2, 1), what="two at work and one that waits")
    during = slow.stats().engine
    assert during.slots == 2
    assert 0 < during.kv_used < during.kv_total == 2000
    for exchange in exchanges:
        exchange.close()
    slow.becomes_idle()
    after = slow.stats()
    assert after.engine.generated > before.engine.generated
    assert after.tokens_per_second > 0
    assert after.engine.prefix_asked - before.engine.prefix_asked >= 10


@pytest.mark.parametrize("at_once", [True, False])
def test_a_closed_connection_cancels_its_request(slow, at_once):
    exchange = slow.exchange(endless())
    if not at_once:
        assert isinstance(exchange.receive(RunnerEvent), Started)
        assert slow.stats().engine.running == 1
    exchange.close()
    wait_until(slow.is_idle, timeout=2, what="the cancel")


def test_a_closed_connection_cancels_a_request_that_still_waits(slow):
    at_work = [slow.exchange(endless()) for _ in range(2)]
    wait_until(lambda: slow.stats().engine.running == 2, what="two at work")
    waiting = slow.exchange(endless())
    wait_until(lambda: slow.stats().engine.waiting == 1, what="one that waits")
    waiting.close()
    wait_until(lambda: slow.stats().engine.waiting == 0, timeout=2, what="the cancel")
    assert slow.stats().engine.running == 2
    for exchange in at_work:
        exchange.close()
    slow.becomes_idle()


def test_one_request_more_than_allowed_is_refused_and_the_others_go_on(slow):
    exchanges = [slow.exchange(generate("x" * 100)) for _ in range(MAX_REQUESTS)]
    wait_until(lambda: slow.stats().engine.running + slow.stats().engine.waiting == MAX_REQUESTS, what="as many as allowed")
    with contextlib.closing(slow.exchange(generate())) as exchange, pytest.raises(ServiceError, match="MAX_CONCURRENT_REQUESTS") as caught:
        exchange.receive(RunnerEvent)
    assert (caught.value.status, caught.value.code, caught.value.retry_after) == (429, "rate_limit_exceeded", 1)
    assert [text(to_the_end(exchange)) for exchange in exchanges] == ["x" * 100] * MAX_REQUESTS
    assert text(to_the_end(slow.exchange(generate()))) == "hello"


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x00\xff\xfe\n",
        encode(generate())[:-20],
        encode(generate())[:-20] + b"\n",
        encode(Load(model="of the manager")),
        encode(Delta(text="an event")),
        b'{"kind":"Generate","prompt":{"kind":"TextPrompt","text":"\\ud800"},"sampling":{"seed":1}}\n',
        b"[" * 100_000 + b"\n",
        b"x" * 1_000_000,
    ],
    ids=["nothing", "empty", "HTTP", "bytes", "cut", "cut line", "stranger", "event", "surrogate", "brackets", "no end"],
)
def test_what_is_no_request_ends_its_connection_and_nothing_else(runner, line):
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        connection.connect(runner.socket)
        connection.sendall(line)
        connection.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionResetError):
            assert connection.recv(1000) == b""
    assert text(to_the_end(runner.exchange(generate()))) == "hello"
    assert runner.is_idle()


def test_a_client_that_reads_nothing_holds_up_nobody_else(slow):
    with contextlib.closing(slow.exchange(endless())):
        assert text(to_the_end(slow.exchange(generate()))) == "hello"
    slow.becomes_idle()


def test_the_end_of_its_standard_input_ends_it_whatever_it_does(own):
    with contextlib.closing(own.exchange(endless())) as exchange:
        exchange.receive(RunnerEvent)
        own.process.stdin.close()
        assert own.process.wait(5) == 0


def test_sigterm_lets_running_requests_end_and_takes_no_new_ones(own):
    exchange = own.exchange(generate("x" * 100))
    assert isinstance(exchange.receive(RunnerEvent), Started)
    own.process.send_signal(signal.SIGTERM)
    wait_until(lambda: not os.path.exists(own.socket), what="the end of its socket")
    with pytest.raises(OSError, match="No such file"):
        own.exchange(generate())
    *deltas, ended, _ = to_the_end(exchange)
    assert (text(deltas), ended) == ("x" * 100, Ended(reason="stop"))
    assert own.process.wait(10) == 0


def test_sigterm_ends_an_idle_runner_at_once(own):
    own.process.send_signal(signal.SIGTERM)
    assert own.process.wait(5) == 0


def test_ctrl_c_is_left_to_the_master(own):
    own.process.send_signal(signal.SIGINT)
    assert text(to_the_end(own.exchange(generate()))) == "hello"
    assert own.process.poll() is None


def test_a_model_that_does_not_load_is_reported_and_ends_the_runner(tmp_path):
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF" + b"\xff" * 1000)
    with Runner(tmp_path / "run", engine="llama_cpp", model_path=str(broken)) as failed:
        assert isinstance(failed.report, Failed)
        assert failed.report.message
        assert failed.process.wait(10) == 1
        assert failed.process.stdout.read() == b"", "its report is not all that reached the manager"
        assert failed.stderr.read_bytes().endswith(b"noise")
        assert not os.path.exists(failed.socket)
