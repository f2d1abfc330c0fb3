"""A chat template in a process of its own. Knows nothing of Jinja or messages.

The sandbox keeps a template from the machine, but not from taking all of its time and memory: one multiplication may do that, in
code that no thread can interrupt. Here it costs that process alone, which has some seconds, some memory, no files and no secrets.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from src import errors
from src.errors import ChatTemplateTooCostly, InvalidValue, ModelLoadFailed, ServiceError
from src.text.pipe import receive, send

ROOT = Path(__file__).resolve().parents[3]
START_SECONDS = 60.0
PATIENCE = 10  # times the processor time it may use: so long may that take where others use the processors
LEAST_ANSWER, GROWTH = 5 << 20, 16  # bytes that may come back, and for each that was sent: more than the sandbox lets a template write
ENVIRONMENT = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "TZ")  # no keys, no secrets


class Template(msgspec.Struct, frozen=True):
    """What the process is told first."""

    source: str
    bos_text: str
    eos_text: str
    seconds: float  # of processor time for each thing it is asked


class Compiled(msgspec.Struct, frozen=True, tag=True):
    variables: list[str]


class Refused(msgspec.Struct, frozen=True, tag=True):
    """An error of src.errors, by its class's name."""

    kind: str
    message: str
    param: str | None = None

    def error(self) -> ServiceError:
        kind: type[ServiceError] = {
            "ModelLoadFailed": ModelLoadFailed,
            "InvalidValue": InvalidValue,
            "ChatTemplateError": errors.ChatTemplateError,
        }.get(self.kind, ChatTemplateTooCostly)
        return kind(self.message, self.param)


TEXT, REFUSED = b"\0", b"\1"  # what an answer begins with


class Apart:
    """Any thread may ask; one question at a time. A process that did not survive a question is started again by the next."""

    def __init__(self, source: str, bos_text: str, eos_text: str, seconds: float) -> None:
        """Raises ModelLoadFailed, ChatTemplateTooCostly."""
        self._template = msgspec.msgpack.encode(Template(source.encode(errors="replace").decode(), bos_text, eos_text, seconds))
        self._seconds = seconds
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self.variables = self._start()

    def render(self, given: Mapping[str, Any]) -> str:
        """Raises InvalidValue, ChatTemplateError, ChatTemplateTooCostly."""
        try:
            question = json.dumps(given).encode()  # not msgspec: it has no integers of more than 64 bits
        except (RecursionError, ValueError):
            raise InvalidValue("These messages are nested too deep.", "messages") from None
        with self._lock:
            if self._process is None:
                self._start()
            assert self._process
            answer = self._ask(self._process, question)
        if answer[:1] == TEXT:
            return answer[1:].decode()
        raise msgspec.msgpack.decode(answer[1:], type=Refused).error()

    def close(self) -> None:
        with self._lock:
            self._end()

    def _start(self) -> frozenset[str]:
        """The variables that the template looks for."""
        process = subprocess.Popen(
            [sys.executable, "-m", "src.text.template"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={name: os.environ[name] for name in ENVIRONMENT if name in os.environ},
        )
        assert process.stdout
        self._process, self._ending = process, weakref.finalize(self, _end, process)
        try:
            receive(process.stdout.fileno(), time.monotonic() + START_SECONDS)
        except (TimeoutError, EOFError) as error:
            self._end()
            raise ModelLoadFailed("the process that renders chat templates did not start") from error
        said = msgspec.msgpack.decode(self._ask(process, self._template), type=Compiled | Refused)
        if isinstance(said, Refused):
            self._end()
            raise said.error()
        return frozenset(said.variables)

    def _ask(self, process: "subprocess.Popen[bytes]", question: bytes) -> bytes:
        assert process.stdin and process.stdout
        try:
            send(process.stdin.fileno(), question)
            most = LEAST_ANSWER + GROWTH * len(question)
            return receive(process.stdout.fileno(), time.monotonic() + PATIENCE * self._seconds, most)
        except (TimeoutError, EOFError, BrokenPipeError) as error:
            self._end()
            if isinstance(error, TimeoutError) or process.returncode == -signal.SIGPROF:
                what = f"takes longer than the {self._seconds:g} s that TEMPLATE_SECONDS allows"
            else:
                what = "takes so much that the process which renders it ends"
            raise ChatTemplateTooCostly(f"The model's chat template {what}.", "messages") from None

    def _end(self) -> None:
        if self._process:
            self._process = None
            self._ending()


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.kill()
    with process:  # closes its pipes
        process.wait()
