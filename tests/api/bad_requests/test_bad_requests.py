"""Every bad request of the table is told what is wrong with it, and the server is afterwards as it was before.

The whole table is sent once, one row after another, to one server; the tests look at what came back.
"""

import json
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

import httpx
import psutil
import pytest

from tests.api.bad_requests import bodies, chats, fields, heads
from tests.api.bad_requests.row import CANARY, COMPLETIONS, Row
from tests.support.raw_http import ask, parsed
from tests.support.server import Server, wait_until

ROWS = [*bodies.ROWS, *fields.ROWS, *chats.ROWS, *heads.ROWS]
LARGEST = 4096  # bytes of an answer: none repeats what was sent
LONGEST = 20  # seconds of a row, most of all for a grammar that is refused after GRAMMAR_COMPILE_SECONDS
GROWTH = 64 * 2**20  # of a process: the largest rows are 10 MB
CONTROL = {"prompt": "the control goes on", "max_tokens": 19}
CONTEXT = 1024


class State(NamedTuple):
    """What a bad request must not change."""

    pids: dict[str, list[int]]
    restarts: int
    generated: int

    @classmethod
    def of(cls, server: Server) -> "State":
        status = server.status()
        names = ("master", "gateway", "manager", "runner")
        [model] = status["models"]
        pids = {name: sorted(use["pid"] for use in status["processes"] if use["name"] == name) for name in names}
        return cls(pids, model["restarts"], model["stats"]["generated"])


class Control:
    """A client that asks the same good question again and again, while the table is sent."""

    def __init__(self, server: Server) -> None:
        self.texts: Counter[str] = Counter()
        self._server, self._stop = server, threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        with httpx.Client(base_url=self._server.url, timeout=60) as client:
            while not self._stop.wait(0.1):
                response = client.post(COMPLETIONS, json=CONTROL)
                self.texts[response.json()["choices"][0]["text"] if response.status_code == 200 else response.text] += 1


class Sent(NamedTuple):
    server: Server
    answers: list[httpx.Response]  # in the order of the rows
    seconds: list[float]
    control: Counter[str]
    before: State
    growth: dict[str, int]


def send(server: Server, client: httpx.Client, row: Row) -> httpx.Response:
    if row.raw is not None:
        return parsed(ask(server.port, row.raw, half_close=row.half_close))
    return client.request(row.method, row.path, content=row.content, headers=row.headers)


def resident(server: Server) -> dict[str, int]:
    return {f"{use['name']} {use['pid']}": psutil.Process(use["pid"]).memory_info().rss for use in server.status()["processes"]}


@pytest.fixture(scope="module")
def sent() -> Iterator[Sent]:
    times = {"KEEPALIVE_TIMEOUT": 1, "HEADER_TIMEOUT": 2}  # for how long a refused body is waited for
    with Server(
        INFERENCE_ENGINE="echo", CONTEXT_LENGTH=CONTEXT, LOG_FORMAT="json", ADMIN_FROM_LOOPBACK="true", disposable=True, **times
    ) as server:
        with httpx.Client(base_url=server.url, timeout=60) as client:
            for row in (*bodies.SIZES, *chats.GRAMMARS[:3]):  # buffers and the process that tries grammars are there from the first on
                send(server, client, row)
            before, size = State.of(server), resident(server)
            control = Control(server)
            answers, seconds = [], []
            try:
                for row in ROWS:
                    began = time.monotonic()
                    answers.append(send(server, client, row))
                    seconds.append(time.monotonic() - began)
            finally:
                control.stop()
        growth = {name: rss - size.get(name, 0) for name, rss in resident(server).items()}
        yield Sent(server, answers, seconds, control.texts, before, growth)


def test_the_table_is_long():
    assert len(ROWS) >= 150


@pytest.mark.parametrize("number", range(len(ROWS)), ids=lambda number: ROWS[number].name.encode("ascii", "replace").decode()[:80])
def test_it_is_told_what_is_wrong(sent, number):
    row, response = ROWS[number], sent.answers[number]
    assert response.status_code == row.status, response.text
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-request-id"]
    error = response.json()["error"]
    assert (error.get("code", error["type"]), error.get("param")) == (row.code, row.param), error
    assert row.told in error["message"]
    assert error["type"] == row.code or error["type"] == "invalid_request_error"
    assert len(response.content) <= LARGEST
    assert CANARY not in response.text
    assert not re.search(r"0x[0-9a-f]{6,}|Traceback|/site-packages|\.py\b", response.text.replace("app.py", ""))
    assert sent.seconds[number] < LONGEST


def test_no_process_was_replaced(sent):
    after = State.of(sent.server)
    assert (after.pids, after.restarts) == (sent.before.pids, sent.before.restarts)


def test_nothing_runs_or_waits_afterwards(sent):
    wait_until(lambda: (sent.server.status()["requests"]["running"], sent.server.status()["requests"]["waiting"]) == (0, 0))


def test_nothing_of_it_was_executed_neither_what_stood_there_nor_what_was_smuggled(sent):
    """The control's tokens are all that was generated."""
    asked = sum(sent.control.values())
    assert State.of(sent.server).generated - sent.before.generated == asked * CONTROL["max_tokens"]


def test_a_good_request_beside_them_was_always_answered_alike(sent):
    assert list(sent.control) == [CONTROL["prompt"]]
    assert sum(sent.control.values()) >= 10


def test_a_good_request_afterwards_is_answered(sent):
    assert httpx.post(f"{sent.server.url}{COMPLETIONS}", json=CONTROL).json()["choices"][0]["text"] == CONTROL["prompt"]


def test_no_process_has_grown_much(sent):
    assert {name: grown for name, grown in sent.growth.items() if grown > GROWTH} == {}


def test_each_of_them_has_one_line_in_the_log_and_each_line_is_whole(sent):
    """Whatever stood in a path or a header: JSON, one object a line."""
    lines = [json.loads(line) for line in sent.server.log("api_requests").splitlines()]
    ids = Counter(line["id"] for line in lines)
    assert [ids[answer.headers["x-request-id"]] for answer in sent.answers] == [1] * len(ROWS)


@pytest.mark.parametrize("fields", chats.LAWFUL, ids=lambda fields: json.dumps(fields)[-60:])
def test_what_is_costly_and_not_wrong_is_answered_or_refused_in_time(sent, fields):
    """After the rest: it generates tokens."""
    began = time.monotonic()
    response = httpx.post(f"{sent.server.url}/v1/chat/completions", json={**chats.HELLO, **fields, "max_tokens": 5}, timeout=60)
    assert time.monotonic() - began < LONGEST
    if response.status_code != 200:
        assert (response.status_code, response.json()["error"]["code"]) in ((400, "invalid_schema"), (500, "engine_error"))
    assert State.of(sent.server).pids == sent.before.pids


def test_an_id_that_could_do_harm_is_replaced(sent):
    named = [answer for row, answer in zip(ROWS, sent.answers, strict=True) if "X-Request-ID" in row.headers]
    assert len(named) == 3
    assert all(re.fullmatch(r"[0-9a-f]{32}", answer.headers["x-request-id"]) for answer in named)


def test_nothing_of_what_was_sent_is_in_any_log(sent):
    for path in (sent.server.folder / "logs").iterdir():
        assert CANARY not in path.read_text(), path.name
    assert CANARY not in sent.server.output
    assert sent.server.log("errors") == ""
