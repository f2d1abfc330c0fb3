"""--max-requests replaces workers and nothing else: no request fails, no stream is cut, nobody waits, no model is loaded anew."""

import itertools
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.server import PLAIN_GUNICORN, Server, wait_until

pytestmark = pytest.mark.slow


def ask(server: Server, number: int) -> float:
    """Seconds from the question to its whole answer."""
    began = time.monotonic()
    answer = server.client().chat.completions.create(model="echo", messages=[{"role": "user", "content": f"number {number}"}])
    assert answer.choices[0].message.content == f"user: number {number}\n"
    return time.monotonic() - began


def test_workers_are_replaced_under_load_and_every_request_is_answered():
    with Server(command=PLAIN_GUNICORN, INFERENCE_ENGINE="echo", ECHO_STEP_MS=2) as server:
        runner = server.pids("runner")
        seen, numbers, enough = set(), itertools.count(), threading.Event()

        def keep_asking() -> list[float]:
            times = []
            while not enough.is_set():
                times.append(ask(server, next(numbers)))
            return times

        def four_seen() -> bool:
            seen.update(server.pids("gateway"))
            return len(seen) >= 4

        with ThreadPoolExecutor(8) as clients:
            askers = [clients.submit(keep_asking) for _ in range(8)]
            try:
                wait_until(four_seen, timeout=60, what="three replacements")
            finally:
                enough.set()
            times = [seconds for asker in askers for seconds in asker.result()]
        assert len(times) > 20
        assert max(times) < 10
        assert server.pids("runner") == runner


def test_a_long_stream_on_a_retired_worker_runs_to_its_end_and_keeps_nobody_waiting():
    command = PLAIN_GUNICORN.replace("--max-requests 5", "--max-requests 30")
    with Server(command=command, INFERENCE_ENGINE="echo", ECHO_STEP_MS=10) as server:
        first = server.pids("gateway")
        assert len(first) == 1
        pieces, ended = [], threading.Event()

        def stream() -> None:
            for chunk in server.client().chat.completions.create(
                model="echo", messages=[{"role": "user", "content": "long"}], stream=True, max_tokens=900, extra_body={"ignore_eos": True}
            ):
                pieces.append(chunk.choices[0].delta.content or "")
            ended.set()

        thread = threading.Thread(target=stream)
        thread.start()
        wait_until(lambda: pieces, what="the stream's begin")
        with ThreadPoolExecutor(8) as clients:
            slowest = max(clients.map(lambda number: ask(server, number), range(40)))
        wait_until(lambda: "Handling signal: ttou" in server.output, what="the retirement of the first worker")
        assert not ended.is_set(), "the stream has to outlive its worker's retirement"
        assert ask(server, 41) < 2
        assert slowest < 5
        thread.join()
        assert len("".join(pieces)) == 900
        wait_until(lambda: not set(server.pids("gateway")) & set(first), what="the end of the first worker")
        assert "Traceback" not in server.output
