"""A Mac that serves does not go to sleep; no other system is asked for anything."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from src.manager import __main__ as manager
from src.manager import awake
from tests.support.server import wait_until

pytestmark = pytest.mark.macos


@pytest.fixture
def asked(tmp_path, monkeypatch) -> Path:
    """What a caffeinate in place of macOS' was started with: its process id and its arguments."""
    program = tmp_path / "caffeinate"
    program.write_text(f'#!/bin/sh\necho "$$ $@" >{tmp_path}/writing\nmv {tmp_path}/writing {tmp_path}/asked\nexec sleep 600\n')
    program.chmod(0o755)
    monkeypatch.setattr(awake, "CAFFEINATE", str(program))
    return tmp_path / "asked"


def test_while_the_server_runs_a_mac_does_not_sleep(asked, monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    with awake.kept_awake():
        wait_until(asked.exists, what="its start")
        pid, *arguments = asked.read_text().split()
        assert arguments == ["-i", "-w", str(os.getpid())]
        assert psutil.pid_exists(int(pid))
    assert not psutil.pid_exists(int(pid))


def test_what_was_raised_meanwhile_is_raised_still(asked, monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(KeyError), awake.kept_awake():
        raise KeyError


def test_without_the_program_the_server_runs_too(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(awake, "CAFFEINATE", "/nowhere/caffeinate")
    with awake.kept_awake():
        pass


@pytest.mark.skipif(sys.platform == "darwin", reason="there it is started")
def test_no_other_system_is_asked(asked, monkeypatch):
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("a program was started"))
    with awake.kept_awake():
        pass


def test_the_manager_keeps_it_awake_from_its_start_to_its_end(asked, monkeypatch):
    """Not the master, all of whose children are taken for gateway workers."""
    seen = []

    def run(main) -> None:
        main.close()
        seen.append(wait_until(asked.exists, what="its start"))

    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(sys, "argv", ["manager", "http://127.0.0.1:1", "1"])
    monkeypatch.setattr(manager.logs, "configure", lambda *_: None)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(asyncio, "run", run)
    manager.main()
    assert seen == [True]
