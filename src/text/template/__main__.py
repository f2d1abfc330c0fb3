"""`python -m src.text.template`: the process of apart.py. Ends with the runner, whose pipe is its standard input."""

import contextlib
import encodings.unicode_escape
import html
import json
import os
import pprint
import resource
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import jinja2.constants
import jinja2.debug
import msgspec

from src.errors import ChatTemplateTooCostly, InvalidValue, ServiceError
from src.text.pipe import receive, send
from src.text.template.apart import REFUSED, TEXT, Compiled, Refused, Template
from src.text.template.sandbox import Sandbox

# What Jinja imports when a template first needs it, while no file can be opened any more.
NEEDED = (encodings.unicode_escape, html, jinja2.constants, jinja2.debug, pprint)

MEMORY_BYTES = 1 << 28  # that a template may take
MEMORY_GROWTH = 16  # times the size of what it is given: so much more


def main() -> None:
    """A template, then what to render it with, each answered by its text or by why there is none."""
    send(1, b"")  # it has started
    template = msgspec.msgpack.decode(receive(0), type=Template)
    bounds = Bounds(template.seconds)
    with bounds.around(len(template.source)):
        told = _compile(template)
    send(1, msgspec.msgpack.encode(told if isinstance(told, Refused) else Compiled(sorted(told.variables))))
    if isinstance(told, Refused):
        return
    while True:
        question = receive(0)
        with bounds.around(len(question)):
            answer = _render(told, question)
        send(1, answer)


def _compile(template: Template) -> Sandbox | Refused:
    try:
        return Sandbox(template.source, template.bos_text, template.eos_text)
    except ServiceError as error:
        return _told(error)
    except MemoryError:
        return Refused("ModelLoadFailed", "the model's chat template takes too much memory to compile")


def _render(sandbox: Sandbox, question: bytes) -> bytes:
    try:
        return TEXT + sandbox.render(json.loads(question), len(question)).encode(errors="replace")
    except ServiceError as error:
        return _refused(error)
    except MemoryError:
        return _refused(ChatTemplateTooCostly("The model's chat template takes too much memory on these messages.", "messages"))
    except (RecursionError, ValueError):
        return _refused(InvalidValue("These messages are nested too deep.", "messages"))


def _refused(error: ServiceError) -> bytes:
    return REFUSED + msgspec.msgpack.encode(_told(error))


def _told(error: ServiceError) -> Refused:
    return Refused(type(error).__name__, error.message.encode(errors="replace").decode(), error.param)


class Bounds:
    """What this process may take. The kernel holds it to that, also in the middle of a computation in C."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._memory = _memory_in_use()
        # Should a template ever find a way out of its sandbox: it can open, write and start nothing.
        for limit in (resource.RLIMIT_NOFILE, resource.RLIMIT_FSIZE, resource.RLIMIT_NPROC, resource.RLIMIT_CORE):
            with contextlib.suppress(ValueError, OSError):
                resource.setrlimit(limit, (0, 0))

    @contextlib.contextmanager
    def around(self, size: int) -> Iterator[None]:
        """`size` in bytes of what comes in. The signal ends the process."""
        if self._memory:
            most = self._memory + MEMORY_BYTES + MEMORY_GROWTH * size
            resource.setrlimit(resource.RLIMIT_AS, (most, resource.RLIM_INFINITY))
        signal.setitimer(signal.ITIMER_PROF, self._seconds)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)


def _memory_in_use() -> int:
    """Bytes of address space; 0 where the kernel does not bound it (macOS)."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() if sys.platform == "linux" else 0


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    time.localtime()  # reads the time zone's file
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)  # a traceback may quote a prompt, and the runner's standard error is a log
    with contextlib.suppress(EOFError, BrokenPipeError):  # the runner is gone
        main()
