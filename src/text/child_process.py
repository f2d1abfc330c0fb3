"""A sandboxed process for code or data of strangers: asked over pipes, killed on a time-out, started again by the next question.

`ChildProcess` is the asking side. The child is a module that calls `detach`, then `serve`, and holds itself to `Bounds`. The asking side
looks at the child's memory too: not every system holds a process to a bound of its own.
"""

import contextlib
import os
import resource
import select
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import NamedTuple

import psutil

from src import ROOT

ENVIRONMENT = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "TZ")  # no keys, no secrets
START_SECONDS = 60.0
MAX_MESSAGE = 1 << 31  # bytes
LOOK_SECONDS = 0.05  # between two looks at the memory of a child that computes
LIBRARY_BYTES = 1 << 26  # what a child may have mapped before a question, and touches only now


class ChildFailed(Exception):
    """The child did not survive a question."""


class ChildTimedOut(ChildFailed):
    """It took too long: by the clock, or in processor time."""


class ChildTookTooMuch(ChildFailed):
    """It took more memory than it may, and its system did not keep it from that."""


class ChildNotStarted(ChildFailed):
    """It could not be started."""


class Memory(NamedTuple):
    """Bytes that one question may take, with `growth` for each byte of the question."""

    most: int
    growth: int = 0

    def of(self, size: int) -> int:
        return self.most + self.growth * size


class ChildProcess:
    """Any thread may ask; one question at a time. The first starts the process, and so does one after a question it did not survive."""

    def __init__(self, module: str, setup: bytes, memory: Memory, setup_seconds: float = START_SECONDS) -> None:
        """`module` is run as `python -m module`. `setup` is the first message to each process, to be answered in `setup_seconds`.
        `memory`: what it may take for that, and for each question."""
        self._module = module
        self._setup = setup
        self._memory = memory
        self._setup_seconds = setup_seconds
        self._setup_answer = b""
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """None while no process runs."""
        process = self._process
        return process.pid if process else None

    def start(self) -> bytes:
        """Start the process unless it runs. Returns its answer to the setup. Raises ChildFailed."""
        with self._lock:
            self._start()
            return self._setup_answer

    def ask(self, question: bytes, seconds: float, max_answer: int = MAX_MESSAGE) -> bytes:
        """`seconds` by the clock, `max_answer` in bytes. Raises ChildFailed; the process is gone then."""
        with self._lock:
            self._start()
            return self._exchange(question, seconds, max_answer)

    def close(self) -> None:
        with self._lock:
            self._end()

    def _start(self) -> None:
        if self._process:
            return
        process = subprocess.Popen(
            [sys.executable, "-m", self._module],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={name: os.environ[name] for name in ENVIRONMENT if name in os.environ},
        )
        assert process.stdin and process.stdout
        os.set_blocking(process.stdin.fileno(), False)  # a child that does not read must not hold up the one that asks
        self._process, self._ending = process, weakref.finalize(self, _kill, process)
        try:
            receive(process.stdout.fileno(), time.monotonic() + START_SECONDS, 0)
        except (TimeoutError, EOFError) as error:
            self._end()
            raise ChildNotStarted from error
        self._setup_answer = self._exchange(self._setup, self._setup_seconds)

    def _exchange(self, question: bytes, seconds: float, max_answer: int = MAX_MESSAGE) -> bytes:
        process = self._process
        assert process and process.stdin and process.stdout
        deadline = time.monotonic() + seconds
        most = _resident(process.pid) + self._memory.of(len(question)) + LIBRARY_BYTES
        try:
            send(process.stdin.fileno(), question, deadline)
            while not _is_ready(process.stdout.fileno(), select.POLLIN, min(deadline, time.monotonic() + LOOK_SECONDS)):
                if _resident(process.pid) > most:
                    raise ChildTookTooMuch
                if time.monotonic() >= deadline:
                    raise TimeoutError
            return receive(process.stdout.fileno(), deadline, max_answer)
        except BaseException as error:  # also where this thread is interrupted: the answer must not be taken for the next question's
            self._end()
            if isinstance(error, TimeoutError) or process.returncode == -signal.SIGPROF:
                raise ChildTimedOut from None
            if isinstance(error, EOFError | BrokenPipeError):
                raise ChildFailed from None
            raise

    def _end(self) -> None:
        if self._process:
            self._process = None
            self._ending()


def _resident(pid: int) -> int:
    """Bytes; 0 of a process that has ended."""
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return 0


def _kill(process: "subprocess.Popen[bytes]") -> None:
    process.kill()
    with process:  # closes its pipes
        process.wait()


# The child's side.


def detach() -> None:
    """To be called first, in the child's main thread."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)  # a traceback may quote a prompt, and the runner's standard error is a log


def serve(setup: Callable[[bytes], tuple[bytes, Callable[[bytes], bytes] | None]]) -> None:
    """Answer questions until the parent is gone. `setup` takes the first message and returns the answer to it and the function
    that answers all others, None where there are to be none."""
    with contextlib.suppress(EOFError, BrokenPipeError):
        send(1, b"")  # started
        first, answer = setup(receive(0))
        send(1, first)
        while answer:
            send(1, answer(receive(0)))


class Bounds:
    """What this process may take. The kernel enforces it, also in the middle of a computation in C."""

    def __init__(self, seconds: float, memory: Memory) -> None:
        """For one question: `seconds` of processor time, and `memory` more than now.

        From now on, no file can be opened or written, and no process started.
        """
        self._seconds = seconds
        self._memory = memory
        self._memory_now = psutil.Process().memory_info().vms  # what RLIMIT_AS is held against, on macOS too
        for limit in (resource.RLIMIT_NOFILE, resource.RLIMIT_FSIZE, resource.RLIMIT_NPROC, resource.RLIMIT_CORE):
            with contextlib.suppress(ValueError, OSError):
                resource.setrlimit(limit, (0, 0))

    @contextlib.contextmanager
    def around(self, size: int) -> Iterator[None]:
        """Around the work on a question of `size` bytes. SIGPROF ends the process, and memory above the bound is not given."""
        _bound_address_space(self._memory_now + self._memory.of(size))
        signal.setitimer(signal.ITIMER_PROF, self._seconds)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)


def _bound_address_space(most: int) -> None:
    """macOS refuses a bound below what is in use. Then, as with one that it does not hold, the asking side's looks are the bound."""
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


# Messages on a pipe, each behind its length.


def send(pipe: int, data: bytes, deadline: float | None = None) -> None:
    """Raises BrokenPipeError where the other side is gone; TimeoutError at the deadline, in time.monotonic() seconds. With a
    deadline, the pipe must not block."""
    left = memoryview(len(data).to_bytes(4, "big") + data)
    while left:
        if deadline is not None:
            _wait(pipe, select.POLLOUT, deadline)
        left = left[os.write(pipe, left) :]


def receive(pipe: int, deadline: float | None = None, max_size: int = MAX_MESSAGE) -> bytes:
    """Raises EOFError where the other side is gone, or announces more than `max_size` bytes; TimeoutError at the deadline."""
    size = int.from_bytes(_read(pipe, 4, deadline), "big")
    if size > max_size:
        raise EOFError
    return _read(pipe, size, deadline)


def _read(pipe: int, size: int, deadline: float | None) -> bytes:
    data = bytearray()
    while len(data) < size:
        if deadline is not None:
            _wait(pipe, select.POLLIN, deadline)
        part = os.read(pipe, size - len(data))
        if not part:
            raise EOFError
        data += part
    return bytes(data)


def _wait(pipe: int, event: int, deadline: float) -> None:
    if not _is_ready(pipe, event, deadline):
        raise TimeoutError


def _is_ready(pipe: int, event: int, deadline: float) -> bool:
    """Wait for it until the deadline. By poll: select takes no descriptor past 1,023."""
    poll = select.poll()
    poll.register(pipe, event)
    return bool(poll.poll(max(0.0, deadline - time.monotonic()) * 1000))
