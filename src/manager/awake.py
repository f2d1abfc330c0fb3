"""Keeps a Mac awake while the server runs: an idle one sleeps, whoever waits for it over the network."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator

CAFFEINATE = "/usr/bin/caffeinate"


@contextlib.contextmanager
def kept_awake() -> Iterator[None]:
    """The display may sleep. Does nothing on other systems, and where macOS' program for it is not there."""
    with contextlib.ExitStack() as stack:
        if sys.platform == "darwin":
            with contextlib.suppress(OSError):
                # -i: no sleep for want of a user; -w: till this process is gone, however it ends.
                command = [CAFFEINATE, "-i", "-w", str(os.getpid())]
                process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                stack.enter_context(process)  # waits for it
                stack.callback(process.terminate)
        yield
