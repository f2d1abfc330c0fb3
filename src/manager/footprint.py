"""What a process has of a Mac's memory and has read of its disk, by the kernel's own account: its resident size lacks what only the
GPU reads, and no figure of its memory tells how far a load is."""

import ctypes
import functools
import sys
from typing import Any

_V2 = 2  # RUSAGE_INFO_V2
_COUNTS = (
    "user_time system_time pkg_idle_wkups interrupt_wkups pageins wired_size resident_size phys_footprint proc_start_abstime "
    "proc_exit_abstime child_user_time child_system_time child_pkg_idle_wkups child_interrupt_wkups child_pageins "
    "child_elapsed_abstime diskio_bytesread diskio_byteswritten"
).split()


class _Usage(ctypes.Structure):
    """struct rusage_info_v2 of macOS' sys/resource.h."""

    _fields_ = (("uuid", ctypes.c_uint8 * 16), *((name, ctypes.c_uint64) for name in _COUNTS))


def physical_bytes(pid: int) -> int | None:
    """Buffers of the GPU are in it, files that are only mapped are not. None of a process that is gone, and on other systems."""
    usage = _usage(pid)
    return int(usage.phys_footprint) if usage else None


def disk_bytes(pid: int) -> int | None:
    """What it has read of the disk, also by mapping files; what was in the cache is not in it."""
    usage = _usage(pid)
    return int(usage.diskio_bytesread) if usage else None


def _usage(pid: int) -> _Usage | None:
    if sys.platform != "darwin":
        return None
    usage = _Usage()
    failed = _ask()(ctypes.c_int(pid), ctypes.c_int(_V2), ctypes.byref(usage))
    return None if failed else usage


@functools.cache
def _ask() -> Any:
    """libproc's function, which is part of every program; of processes of the same user it tells without more rights."""
    return ctypes.CDLL(None).proc_pid_rusage
