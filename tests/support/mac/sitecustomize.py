"""Makes every Python process that has this folder on its PYTHONPATH behave as on a Mac where Linux behaves otherwise.

`python -m tests.support.like_macos` sets that up. sys.platform stays: what asks for it is tested with a fake of it. The traits are
those of XNU's sources: bsd/kern/sys_generic.c (poll), uipc_usrreq.c (Unix sockets), sys_pipe.c.
"""

import _socket
import errno
import os
import select
import sys
from collections import namedtuple
from collections.abc import Callable
from typing import Any, ClassVar

BACKLOG = 128  # kern.ipc.somaxconn
UNIX_BYTES = 4096  # Linux takes it twice: what macOS' net.local.stream.sendspace is
PIPE_BUF = 512
DEFAULT_BYTES = _socket.socket(_socket.AF_UNIX).getsockopt(_socket.SOL_SOCKET, _socket.SO_SNDBUF)
NOT_THERE = ("rlimit", "io_counters", "cpu_affinity", "cpu_num", "ionice", "memory_maps")  # of psutil.Process


class Socket(_socket.socket):
    """Few connections wait; one too many on a Unix socket is refused at once; Unix sockets hold 8 KiB, till a program wants more."""

    __slots__ = ()

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        if self.family == _socket.AF_UNIX and self.getsockopt(_socket.SOL_SOCKET, _socket.SO_SNDBUF) == DEFAULT_BYTES:
            self.setsockopt(_socket.SOL_SOCKET, _socket.SO_SNDBUF, UNIX_BYTES)
            self.setsockopt(_socket.SOL_SOCKET, _socket.SO_RCVBUF, UNIX_BYTES)

    def listen(self, backlog: int = BACKLOG, /) -> None:
        super().listen(min(backlog, BACKLOG))

    def connect(self, address: Any, /) -> None:
        if self.family != _socket.AF_UNIX:
            super().connect(address)
        elif code := self.connect_ex(address):
            raise OSError(code, os.strerror(code))

    def connect_ex(self, address: Any, /) -> int:
        if self.family != _socket.AF_UNIX:
            return super().connect_ex(address)
        timeout = self.gettimeout()
        super().setblocking(False)
        try:
            code = super().connect_ex(address)
        finally:
            super().settimeout(timeout)
        return errno.ECONNREFUSED if code == errno.EAGAIN else code


class Poll:
    """Reports nothing of a descriptor that was registered for nothing, and the end of what its other side says as a hang-up."""

    def __init__(self) -> None:
        self._poll = _kernel_poll()
        self._asked: dict[int, int] = {}

    def register(self, file: Any, events: int = select.POLLIN | select.POLLPRI | select.POLLOUT, /) -> None:
        self._poll.register(file, self._with_end(events))
        self._asked[_number(file)] = events

    def modify(self, file: Any, events: int, /) -> None:
        self._poll.modify(file, self._with_end(events))
        self._asked[_number(file)] = events

    def unregister(self, file: Any, /) -> None:
        self._poll.unregister(file)
        del self._asked[_number(file)]

    def poll(self, timeout: float | None = None, /) -> list[tuple[int, int]]:
        found = []
        for number, events in self._poll.poll(timeout):
            if events & _END:
                events = (events & ~_END) | select.POLLHUP
            if self._asked[number] or events & select.POLLNVAL:
                found.append((number, events))
        return found

    @staticmethod
    def _with_end(events: int) -> int:
        return events | _END if events & (select.POLLIN | select.POLLPRI | select.POLLHUP) else events


def _number(file: Any) -> int:
    return file if isinstance(file, int) else file.fileno()


def _psutil(module: Any) -> None:
    """Of a process' memory the system tells two numbers; who has a port only root is told."""
    process = module._psplatform.Process
    whole = process.memory_info

    def memory_info(self: Any) -> Any:
        found = whole(self)
        return _Memory(found.rss, found.vms, 0, 0)

    def net_connections(*_: object, **__: object) -> None:
        raise module.AccessDenied

    process.memory_info = memory_info
    module.net_connections = net_connections
    for name in NOT_THERE:
        if hasattr(module.Process, name):
            delattr(module.Process, name)


def _urllib(module: Any) -> None:
    """To ask macOS for its proxies ends a process that was forked and has not called exec."""
    for name in ("getproxies", "proxy_bypass"):
        real = getattr(module, name)

        def asked(*given: Any, real: Callable[..., Any] = real) -> Any:
            if _forked:
                os.write(2, b"A forked process asked for the system's proxies\n")
                os.abort()
            return real(*given)

        setattr(module, name, asked)


def _name_service(module: Any) -> None:
    """A Mac without a name takes 5 to 35 s to say so."""

    def getfqdn(name: str = "") -> str:
        raise AssertionError("socket.getfqdn() takes seconds on a Mac")

    module.getfqdn = getfqdn


class _AfterImport:
    """Changes a module once it is imported. Importing all of them here would cost every process 0.1 s."""

    changes: ClassVar[dict[str, Callable[[Any], None]]] = {
        "psutil": _psutil,
        "urllib.request": _urllib,
        "socket": _name_service,
        "gevent._socketcommon": _name_service,
    }

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name not in self.changes:
            return None
        change = self.changes[name]
        for finder in sys.meta_path:
            if finder is not self and (spec := finder.find_spec(name, path, target)):

                def exec_module(module: Any, run: Callable[[Any], None] = spec.loader.exec_module) -> None:
                    run(module)
                    change(module)

                spec.loader.exec_module = exec_module
                return spec
        return None


def _fork() -> None:
    global _forked
    _forked = True


_Memory = namedtuple("pmem", ["rss", "vms", "pfaults", "pageins"])
_forked = False
_kernel_poll, _END = select.poll, select.POLLRDHUP
os.register_at_fork(after_in_child=_fork)
_socket.socket = Socket
select.poll = Poll
select.PIPE_BUF = PIPE_BUF
del select.POLLRDHUP
sys.meta_path.insert(0, _AfterImport())
for _name in _AfterImport.changes:
    if _name in sys.modules:  # by whatever .pth file
        _AfterImport.changes[_name](sys.modules[_name])
