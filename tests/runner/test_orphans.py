"""A runner ends with its manager, also where it hangs and no kernel ends it: macOS has no signal for the death of a parent."""

import subprocess
import sys

import pytest

from src.settings import ROOT

pytestmark = pytest.mark.macos

HANGS = """
import ctypes, sys
from src.runner.__main__ import _end_with_the_manager
sys.platform = "darwin"
_end_with_the_manager()
print(flush=True)
ctypes.CDLL(None).sleep(600)  # as in the work of a GPU that never comes to its end
"""


def test_a_runner_that_hangs_in_its_library_ends_when_the_managers_pipe_does():
    with subprocess.Popen([sys.executable, "-c", HANGS], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as runner:
        assert runner.stdout
        assert runner.stdin
        try:
            assert runner.stdout.readline() == b"\n"
            assert runner.poll() is None
            runner.stdin.close()
            assert runner.wait(30) == 0
        finally:
            runner.kill()
