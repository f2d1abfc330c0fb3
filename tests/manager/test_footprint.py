"""On a Mac, a process's memory is what the kernel accounts to it: what the GPU holds for it counts."""

import ctypes
import os
import struct
import sys
from types import SimpleNamespace

import psutil
import pytest

from src.manager import footprint, memory
from src.manager.processes import ProcessTable

pytestmark = pytest.mark.macos

GIB = 2**30


@pytest.fixture
def mac(monkeypatch):
    """One whose kernel writes what sys/resource.h says: 16 bytes, then numbers: the eighth is the footprint, the 17th read bytes."""

    @ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_void_p)
    def ask(pid: int, flavor: int, place: int) -> int:
        if pid != os.getpid() or flavor != 2:
            return -1
        usage = struct.pack("16s18Q", b"uuid", 1, 2, 3, 4, 5, 6 * GIB, 1 * GIB, 40 * GIB, *range(9, 17), 7 * GIB, 18)
        ctypes.memmove(place, usage, len(usage))
        return 0

    psutil.Process()  # what it needs of this system is imported before that seems another
    monkeypatch.setattr(footprint, "_ask", lambda: ask)
    monkeypatch.setattr(sys, "platform", "darwin")


def test_the_kernels_account_is_read_where_it_stands(mac):
    assert footprint.physical_bytes(os.getpid()) == 40 * GIB


def test_how_far_a_load_is_goes_by_what_was_read_of_the_disk(mac):
    """A Mac tells of no pages of files that a process has, and MLX maps none."""
    assert memory.read_bytes(os.getpid()) == 7 * GIB


def test_a_process_that_is_gone_has_nothing(mac):
    assert footprint.physical_bytes(2**22 + 1) is None
    assert memory.private_bytes(2**22 + 1) == memory.read_bytes(2**22 + 1) == 0


def test_growth_on_the_gpu_is_growth(mac):
    """RUNNER_MAX_RSS_GROWTH goes by it."""
    assert memory.private_bytes(os.getpid()) == 40 * GIB


def test_status_and_metrics_tell_it(mac):
    uses = {use.pid: use.rss_bytes for use in ProcessTable().sample({})}
    assert uses[os.getpid()] == 40 * GIB
    assert 0 < uses[os.getppid()] < 40 * GIB, "of another user's process there is the resident size"


def test_no_look_goes_through_all_processes_of_a_mac(mac, monkeypatch):
    monkeypatch.setattr(psutil.Process, "memory_info", lambda _: SimpleNamespace(rss=3 * GIB, shared=GIB))
    monkeypatch.setattr(psutil.Process, "children", lambda *_, **__: pytest.fail("all processes are looked at"))
    assert memory.mapped_bytes(os.getpid()) == GIB
    monkeypatch.setattr(psutil.Process, "memory_info", lambda _: SimpleNamespace(rss=3 * GIB))
    assert memory.mapped_bytes(os.getpid()) == 0, "as macOS tells nothing of it"


@pytest.mark.skipif(sys.platform == "darwin", reason="there it has one")
def test_other_systems_have_no_such_account():
    assert footprint.physical_bytes(os.getpid()) is None
    assert footprint.ctypes.sizeof(footprint._Usage) == 160
