"""Processes that are spawned below the engine vLLM end with whatever is killed above them. Needs no vLLM."""

import subprocess
import sys

import psutil
import pytest

from src.settings import ROOT
from tests.support.server import assert_gone, wait_until

PROGRAM = """
import multiprocessing, subprocess, time
from src.engines.vllm import parent_death

parent_death.install()
multiprocessing.get_context("spawn").Process(target={target}, args=[{argument}]).start()
print("spawned", flush=True)
time.sleep(60)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="vLLM's engine core runs on Linux")
@pytest.mark.parametrize("deep", [False, True], ids=["a child", "a grandchild"])
def test_what_was_spawned_ends_with_a_parent_that_is_killed(deep):
    argument = PROGRAM.format(target="time.sleep", argument=60) if deep else 60
    program = PROGRAM.format(target="exec" if deep else "time.sleep", argument=repr(argument))
    with subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True) as parent:
        for _ in range(2 if deep else 1):
            assert parent.stdout.readline() == "spawned\n"
        wait_until(lambda: len(sleepers(parent.pid)) == (2 if deep else 1), what="the program of each")
        family = psutil.Process(parent.pid).children(recursive=True)
        parent.kill()
    assert_gone(family)


def sleepers(pid: int) -> list[psutil.Process]:
    return [process for process in psutil.Process(pid).children(recursive=True) if "spawn_main" in " ".join(process.cmdline())]
