"""The Mac made of Linux has the traits of a Mac: each is seen in a process of its own, and not in this one."""

import json
import os
import select
import subprocess
import sys

import pytest

from src.settings import ROOT

pytestmark = [pytest.mark.macos, pytest.mark.skipif(sys.platform != "linux", reason="made of Linux")]

LOOK = """
import json, os, select, shutil, socket, sys, tempfile, urllib.request
if sys.argv[1:]:  # gevent has sockets of its own
    from gevent import monkey
    monkey.patch_all()
import psutil

def polled(file, events):
    poll = monkey.get_original("select", "poll")() if sys.argv[1:] else select.poll()
    poll.register(file, events)
    return sum(found for _, found in poll.poll(0))

def sent(connection):
    connection.setblocking(False)
    total = 0
    try:
        while True: total += connection.send(bytes(100))
    except BlockingIOError:
        return total

def waits(path):
    '''Connections that wait till nobody takes them, of 200; how the next one ends.'''
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(4096)
        clients = []
        for _ in range(200):
            clients.append(socket.socket(socket.AF_UNIX))
            try:
                clients[-1].connect(path)
            except OSError as error:
                return len(clients) - 1, type(error).__name__
        return 200, ""

def dies(question):
    child = os.fork()
    if not child:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        question()
        os._exit(0)
    return os.waitpid(child, 0)[1]

def name():
    try:
        return socket.getfqdn()
    except AssertionError:
        return "slow"

one, other = socket.socketpair()
room = sent(one)
wide, _ = socket.socketpair()
wide.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 17)
tcp, peer = socket.socket(), socket.socket()
peer.bind(("127.0.0.1", 0)); peer.listen(); tcp.connect(peer.getsockname())
half, silent = socket.socketpair()
silent.shutdown(socket.SHUT_WR)
urllib.request.getproxies()
print(json.dumps({
    "temp": [len(tempfile.gettempdir()) >= 49, os.path.realpath(tempfile.gettempdir()) == tempfile.gettempdir()],
    "programs": [bool(shutil.which(name)) for name in "npm promtool nginx redis-server docker-compose timeout curl cc".split()],
    "room": room <= 16_384, "wide": sent(wide) > 16_384, "tcp": tcp.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) > 16_384,
    "waits": waits(os.path.join(tempfile.mkdtemp(), "s")),
    "pipe": select.PIPE_BUF, "end": hasattr(select, "POLLRDHUP"),
    "polled": [polled(half, 0), polled(half, select.POLLHUP), polled(half, select.POLLIN), polled(half, select.POLLOUT)],
    "memory": list(psutil.Process().memory_info()._fields),
    "limits": hasattr(psutil.Process, "rlimit"),
    "proxies": bool(sys.argv[1:]) or dies(urllib.request.getproxies) != 0,  # gevent forks otherwise
    "name": name(),
}))
"""


@pytest.mark.parametrize("gevent", [[], ["gevent"]], ids=["plain", "gevent"])
def test_a_process_in_it_finds_what_it_would_find_on_a_mac(gevent):
    command = [sys.executable, "-m", "tests.support.like_macos", sys.executable, "-c", LOOK, *gevent]
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONWARNINGS"}
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["temp"] == [True, False]
    assert found["programs"] == [False] * 6 + [True] * 2
    assert (found["room"], found["wide"], found["tcp"]) == (True, True, True)
    assert found["waits"] == [129, "ConnectionRefusedError"], "Linux has place for one more than it was told"
    assert (found["pipe"], found["end"]) == (512, False)
    hang_up, readable, writable = 16, 1, 4
    assert found["polled"] == [0, hang_up, hang_up | readable, writable]
    assert (found["memory"], found["limits"]) == (["rss", "vms", "pfaults", "pageins"], False)
    assert (found["proxies"], found["name"]) == (True, "slow")


@pytest.mark.skipif("LIKE_MACOS" in os.environ, reason="it is one")
def test_it_is_off_by_default():
    assert select.PIPE_BUF == 4096
    assert select.poll is not getattr(sys.modules.get("sitecustomize"), "Poll", None)
    assert "tests/support/mac" not in os.environ.get("PYTHONPATH", "")
