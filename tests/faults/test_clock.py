"""A clock that jumps by hours times nothing out: deadlines are counted by a clock that only goes on (time.monotonic())."""

import ast
import struct
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from src.settings import ROOT
from tests.support.answers import Crowd, ask
from tests.support.programs import program
from tests.support.server import Server, wait_until

# Where the time of day is meant, and what a jump does there. All else counts by time.monotonic().
TIME_OF_DAY = {
    "api/routes/admin.py": "whether a key has expired: that is a day of the calendar",
    "api/access/keyring.py": "the same",
    "api/access/counters.py": "limits' own library counts minutes of the clock, shared by all through Redis: one window ends early or late",
    "api/generation/reply.py": "`created` of an answer",
    "api/generation/response_store.py": "the age of stored responses, by the times of their files, which other processes see too",
    "api/render/models.py": "when a model's file was written, made into text",
    "api/generation/replay/store.py": "`created`; and the age of kept answers, by the times of their files, which other processes see too",
    "keys.py": "`created` of a key",
    "manager/cleanup.py": "the age of unfinished downloads, by the times of their files: days",
    "api/observe/tracing.py": "when a span of a trace began",
    "text/template/chat.py": "today, for a template that asks for it by another name than the rest",
    "text/template/sandbox.py": "strftime_now: what templates tell a model of today",
    "catalog/stamps.py": "whether a file has changed a moment ago, by the times of files: a jump costs a scan",
    "rundir.py": "what lies there is marked as read just now, for programs that remove old files by their times",
    "logs.py": "the days whose logs are kept",
    "gunicorn/gunicorn_log.py": "the time of a record, which is made into text",
}
CLOCK = {
    *(("time", "time"), ("time", "time_ns"), ("datetime", "now"), ("datetime", "utcnow"), ("datetime", "fromtimestamp"), ("date", "today")),
}


def reads_time_of_day(path: Path) -> bool:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "time" and {alias.name for alias in node.names} & {"time", "time_ns"}:
            return True
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name | ast.Attribute):
            owner = node.value.id if isinstance(node.value, ast.Name) else node.value.attr
            if (owner, node.attr) in CLOCK:
                return True
    return False


def test_only_what_means_the_time_of_day_reads_it():
    files = [*(ROOT / "src").rglob("*.py"), ROOT / "run.py", ROOT / "gunicorn.conf.py"]
    assert {str(path.relative_to(ROOT)) for path in files if reads_time_of_day(path)} == {f"src/{name}" for name in TIME_OF_DAY}


class Clock:
    """The time of day of the server's processes, which can be moved while they run; their other clocks are the machine's."""

    def __init__(self, folder: Path) -> None:
        self._offset = folder / "offset"
        self.set(0)
        library = folder / "clock.so"
        subprocess.run([program("cc"), "-shared", "-fPIC", "-O2", "-o", library, ROOT / "tests" / "support" / "clock.c"], check=True)
        self.environ = {"LD_PRELOAD": library, "TEST_CLOCK": self._offset}

    def set(self, hours: int) -> None:
        with open(self._offset, "r+b" if self._offset.exists() else "wb") as file:  # in place: the processes have it mapped
            file.write(struct.pack("=q", 3600 * hours))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="clock.c is for Linux's linker and clocks")
def test_the_clock_jumps_forward_and_back_under_streams_and_nothing_ends_early(tmp_path):
    clock = Clock(tmp_path)
    settings = {"ECHO_STEP_MS": 20, "REQUEST_TIMEOUT": 60, "ENGINE_STALL_SECONDS": 5, "SHUTDOWN_GRACE_SECONDS": 30, "BODY_TIMEOUT": 20}
    with Server(INFERENCE_ENGINE="echo", **settings, **clock.environ) as server, Crowd() as crowd:
        pids = {name: server.pids(name) for name in ("master", "gateway", "manager", "runner")}
        text = "x" * 200
        answers = [crowd.ask(server, text, whole=number % 2 == 0) for number in range(6)]
        wait_until(lambda: server.status()["requests"]["running"] == 6, what="running requests")
        for hours in (3, -3, 30, 0):
            clock.set(hours)
            created = httpx.post(f"{server.url}/v1/completions", json={"model": "echo", "prompt": "x", "max_tokens": 1}, timeout=30).json()[
                "created"
            ]
            assert abs(created - time.time() - 3600 * hours) < 600, "the server's clock was not set"
            time.sleep(0.5)
        assert [answer.result().text for answer in answers] == [f"user: {text}\n"] * 6
        assert [answer.result().error for answer in answers] == [None] * 6
        assert {name: server.pids(name) for name in pids} == pids, "a process was taken for hung"
        assert ask(server, "hello").text == "user: hello\n"
