"""What a process has of a Mac's memory, by the kernel's own account: its resident size lacks what only the GPU reads."""

import ctypes
import functools
import sys
from typing import Any

_V0 = 0  # RUSAGE_INFO_V0
_COUNTS = (
    "user_time system_time pkg_idle_wkups interrupt_wkups pageins wired_size resident_size phys_footprint proc_start_abstime "
    "proc_exit_abstime"
).split()


class _Usage(ctypes.Structure):
    """struct rusage_info_v0 of macOS' sys/resource.h."""

    _fields_ = (("uuid", ctypes.c_uint8 * 16), *((name, ctypes.c_uint64) for name in _COUNTS))


def physical_bytes(pid: int) -> int | None:
    """Buffers of the GPU are in it, files that are only mapped are not. None of a process that is gone, and on other systems."""
    if sys.platform != "darwin":
        return None
    usage = _Usage()
    failed = _ask()(ctypes.c_int(pid), ctypes.c_int(_V0), ctypes.byref(usage))
    return None if failed else int(usage.phys_footprint)


@functools.cache
def _ask() -> Any:
    """libproc's function, which is part of every program; of processes of the same user it tells without more rights."""
    return ctypes.CDLL(None).proc_pid_rusage
