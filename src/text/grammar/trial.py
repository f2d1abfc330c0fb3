"""A process that compiles each grammar before the runner does. Knows neither models nor requests.

llguidance's limits do not bound everything: there are grammars of a few hundred bytes that it works on for hours, and
others that end the process, for it recurses. Both are to cost that process alone.
"""

import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import msgspec

from src.errors import EngineError
from src.text.grammar.matcher import Refused
from src.text.grammar.vocabulary import Vocabulary
from src.text.pipe import receive, send

ROOT = Path(__file__).resolve().parents[3]
START_SECONDS = 60.0


class Trial:
    """Any thread may ask; one question at a time. The process is started by the first, and again after one it did not survive."""

    def __init__(self, vocabulary: Vocabulary, seconds: float) -> None:
        self._vocabulary = vocabulary
        self._seconds = seconds
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def check(self, source: str) -> None:
        """Raises Refused, also for a grammar that takes too long."""
        with self._lock:
            process = self._process or self._start()
            try:
                reason: str | None = _ask(process, source, self._seconds)
            except TimeoutError:
                self._end()
                reason = f"to compile it takes longer than the {self._seconds:g} s that GRAMMAR_COMPILE_SECONDS allows"
            except (EOFError, BrokenPipeError):
                self._end()
                reason = "it is too complex: use a simpler schema or expression"
        if reason is not None:
            raise Refused(reason)

    def close(self) -> None:
        with self._lock:
            self._end()

    def _start(self) -> "subprocess.Popen[bytes]":
        self._process = subprocess.Popen(
            [sys.executable, "-m", "src.text.grammar"], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        try:
            _ask(self._process, self._vocabulary, START_SECONDS)
        except (OSError, EOFError) as error:
            self._end()
            raise EngineError("The process that tries grammars did not start.") from error
        return self._process

    def _end(self) -> None:
        if self._process:
            self._process.kill()
            with self._process:  # closes its pipes
                self._process.wait()
        self._process = None


def _ask(process: "subprocess.Popen[bytes]", question: Any, seconds: float) -> str | None:
    """Raises TimeoutError; EOFError or BrokenPipeError where the process is gone."""
    assert process.stdin and process.stdout
    send(process.stdin.fileno(), msgspec.msgpack.encode(question))
    return msgspec.msgpack.decode(receive(process.stdout.fileno(), time.monotonic() + seconds), type=str | None)
