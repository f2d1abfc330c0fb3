"""How many threads an engine gets and how OpenMP places them. Knows processors, not models.

Measured on two cores with llama.cpp and a 135M model, tokens/s of one sequence (of twenty): alone, beside a process that
takes a fifth of a core, beside one that takes a whole core.

|                                     | alone     | a fifth   | a core    |
|-------------------------------------|-----------|-----------|-----------|
| libgomp's defaults                  | 107 (194) | 91 (202)  | 28 (64)   |
| 1,000 spins                         | 108 (222) | 79 (149)  | 30 (103)  |
| bound to cores, 20,000 spins        | 118 (189) | 114 (209) | 59 (113)  |

A thread that waits at a barrier for one that has no core either burns that very core (many spins) or sleeps and wakes beside
its fellow on one core (few). Bound threads do neither. But bound threads of two processes with fewer threads than cores
would all sit on the first cores, so that only a full set of threads is bound.
"""

import functools
import os
import subprocess
import sys

import psutil

SYSCTL = "/usr/sbin/sysctl"  # macOS'


def cores() -> int:
    """Physical cores that this process may use; of a Mac's, the performance cores: a step waits for the slowest of its threads."""
    if sys.platform == "linux":
        usable = len(os.sched_getaffinity(0))
    else:
        usable = os.cpu_count() or 1
    return min(_performance_cores() or psutil.cpu_count(logical=False) or usable, usable)


@functools.cache
def _performance_cores() -> int:
    """0 on other systems, and where there are no two kinds of cores."""
    if sys.platform != "darwin":
        return 0
    try:
        command = [SYSCTL, "-n", "hw.perflevel0.physicalcpu"]
        return int(subprocess.run(command, capture_output=True, text=True, timeout=5, check=True).stdout)
    except (OSError, subprocess.SubprocessError, ValueError):
        return 0


def environ(threads: int) -> dict[str, str]:
    """OpenMP's settings for a runner with so many engine threads; what the operator has set wins."""
    if sys.platform != "linux" or any(name.startswith(("OMP_", "GOMP_")) for name in os.environ):
        return {}
    if threads == cores():
        return {"OMP_PROC_BIND": "true", "OMP_PLACES": "cores", "GOMP_SPINCOUNT": "20000"}
    return {"GOMP_SPINCOUNT": "1000"}
