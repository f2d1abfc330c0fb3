"""What each process that vLLM spawns imports first, in place of the main module of the process it comes from.

vLLM's core ends its workers, but goes on itself when the process above it is killed: here it asks the kernel to be killed too.
"""

import ctypes
import os
import signal
import sys
from importlib.util import find_spec

PARENT = "INFERENCE_SPAWNED_BY"  # a process id: multiprocessing does not tell so early
PR_SET_PDEATHSIG = 1


def install() -> None:
    """From now on, in what this process spawns and in what that spawns. multiprocessing finds the main module by its spec."""
    sys.modules["__main__"].__spec__ = find_spec("src.engines.vllm.parent_death")
    os.environ[PARENT] = str(os.getpid())


def end_with_the_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(os.environ[PARENT]):  # it died before we asked
        os._exit(1)
    os.environ[PARENT] = str(os.getpid())


if __name__ == "__mp_main__":
    end_with_the_parent()
