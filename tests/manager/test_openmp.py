"""Engine threads are bound to cores; the threads that serve sockets are not."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from src.manager import openmp
from tests.support.server import Server


def test_what_the_operator_has_set_is_left_alone(monkeypatch):
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")
    assert openmp.environ(openmp.cores()) == {}


@pytest.fixture
def mac(tmp_path, monkeypatch) -> Iterator[Path]:
    """One with ten cores, of which its sysctl is still to be written."""
    program = tmp_path / "sysctl"
    program.touch(mode=0o755)
    monkeypatch.setattr(openmp, "SYSCTL", str(program))
    monkeypatch.setattr(openmp.psutil, "cpu_count", lambda logical: 10)
    monkeypatch.setattr(os, "cpu_count", lambda: 10)
    monkeypatch.setattr(sys, "platform", "darwin")
    openmp._performance_cores.cache_clear()
    yield program
    openmp._performance_cores.cache_clear()


@pytest.mark.macos
def test_of_a_macs_cores_the_fast_ones_compute(mac):
    mac.write_text('#!/bin/sh\n[ "$*" = "-n hw.perflevel0.physicalcpu" ] && echo 8\n')
    assert openmp.cores() == 8


@pytest.mark.macos
@pytest.mark.parametrize("text", ["#!/bin/sh\nexit 1\n", "#!/bin/sh\necho unknown oid\n", "#!/nowhere\n"])
def test_where_it_does_not_tell_which_are_fast_all_of_them_do(mac, text):
    mac.write_text(text)
    assert openmp.cores() == 10


@pytest.mark.skipif(sys.platform != "linux", reason="libgomp binds on Linux only")
def test_fewer_threads_than_cores_are_not_bound():
    assert openmp.environ(openmp.cores() - 1) == {"GOMP_SPINCOUNT": "1000"}


@pytest.mark.skipif(sys.platform != "linux", reason="libgomp binds on Linux only")
def test_a_thread_for_every_core_is_bound():
    assert openmp.environ(openmp.cores())["OMP_PROC_BIND"] == "true"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="libgomp binds on Linux only")
def test_only_engine_threads_are_bound():
    with Server(CONTEXT_LENGTH=256, MAX_PARALLEL_SEQUENCES=1, THREADS=0) as server:
        server.client().completions.create(model="smollm2-135m", prompt="One", max_tokens=2)
        runner = server.pids("runner")[0]
        allowed = {
            int(task.name): next(line.split()[1] for line in (task / "status").read_text().splitlines() if "Cpus_allowed_list" in line)
            for task in Path(f"/proc/{runner}/task").iterdir()
        }
    everywhere = len(os.sched_getaffinity(0))
    bound = [cpus for cpus in allowed.values() if cpus.isdigit()]
    assert len(set(bound)) == openmp.cores(), "each engine thread on a core of its own"
    if everywhere > 1:
        assert not allowed[runner].isdigit(), "the main thread serves the socket and may run anywhere"
