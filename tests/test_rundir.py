"""An instance's folder belongs to one instance, whatever becomes of it."""

import os
import signal
import subprocess
import sys

import pytest

from src import rundir
from src.errors import SettingsError
from src.settings import ROOT
from tests.server import Server

CLAIM = "import sys, time; from src import rundir; rundir.claim(sys.argv[1]); print('claimed', flush=True); time.sleep(60)"


def claimant(folder) -> subprocess.Popen:
    process = subprocess.Popen([sys.executable, "-c", CLAIM, str(folder)], cwd=ROOT, stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"claimed\n"
    return process


def test_a_folder_in_use_is_refused_and_left_alone_until_its_owner_is_gone_however_that_ended(tmp_path):
    other = claimant(tmp_path)
    (tmp_path / "manager.sock").touch()
    with pytest.raises(SettingsError, match="in use by another instance"):
        rundir.claim(str(tmp_path))
    rundir.remove_if_unclaimed(str(tmp_path))
    assert (tmp_path / "manager.sock").exists()
    os.kill(other.pid, signal.SIGKILL)
    other.wait()
    other.stdout.close()
    rundir.remove_if_unclaimed(str(tmp_path))
    assert not tmp_path.exists()


def test_a_new_folder_is_private():
    folder = rundir.claim("")
    assert os.stat(folder).st_mode & 0o777 == 0o700
    rundir.remove(folder)
    rundir._claims.pop().close()  # a server's ends with its process


def test_a_folder_that_cannot_be_made_is_one_line_that_says_so(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match=r"RUN_DIR=.* cannot be used"):
        rundir.claim(str(tmp_path / "file" / "below"))


def test_a_second_instance_with_the_same_folder_does_not_start_and_the_first_goes_on(tmp_path):
    folder = tmp_path / "run"
    with Server(INFERENCE_ENGINE="echo", RUN_DIR=folder) as first:
        second = Server(INFERENCE_ENGINE="echo", RUN_DIR=folder, wait=False)
        assert second.process.wait(30) == 2
        assert "RUN_DIR=" in second.output
        assert "in use by another instance" in second.output
        assert first.client().completions.create(model="echo", prompt="x").choices[0].text == "x"
    assert not folder.exists()
