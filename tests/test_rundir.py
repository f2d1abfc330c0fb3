"""An instance's folder belongs to one instance, whatever becomes of it."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time

import pytest

from src import rundir
from src.errors import SettingsError
from src.settings import ROOT
from tests.support.server import Server

pytestmark = pytest.mark.macos

CLAIM = "import sys, time; from src import rundir; rundir.claim(sys.argv[1]); print('claimed', flush=True); time.sleep(60)"


def claimant(folder) -> subprocess.Popen:
    process = subprocess.Popen([sys.executable, "-c", CLAIM, str(folder)], cwd=ROOT, stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"claimed\n"
    return process


def test_a_folder_in_use_is_refused_until_its_owner_is_gone(tmp_path):
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


@contextlib.contextmanager
def umask(mask: int):
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def claimed(path: object) -> int:
    """The mode of a folder that was claimed, and is given up again."""
    folder = rundir.claim(str(path))
    rundir._claims.pop().close()  # a server's ends with its process
    return os.stat(folder).st_mode & 0o7777


@pytest.mark.parametrize("mask", [0, 0o022, 0o177])
def test_a_new_folder_is_private_whatever_the_umask(tmp_path, mask):
    with umask(mask):
        assert claimed(tmp_path / "run") == 0o700
    folder = rundir.claim("")
    rundir._claims.pop().close()
    assert os.stat(folder).st_mode & 0o777 == 0o700
    rundir.remove(folder)


def refused(path: object, reason: str) -> None:
    with pytest.raises(SettingsError, match=reason):
        rundir.claim(str(path))
    assert not rundir._claims


@pytest.mark.parametrize("mode", [0o701, 0o710, 0o750, 0o777])
def test_a_folder_that_others_may_use_is_refused_with_the_command_that_closes_it(tmp_path, mode):
    folder = tmp_path / "run"
    folder.mkdir()
    folder.chmod(mode)
    refused(folder, rf"^RUN_DIR='{folder}' is open to other users \(mode {mode:04o}\)\. Run: chmod 700 {folder}$")
    assert not list(folder.iterdir()), "nothing was written there"
    subprocess.run(["chmod", "700", folder], check=True)
    assert claimed(folder) == 0o700


@pytest.mark.parametrize("spelling", ["run", "run/", "run/.", "./run//"])
def test_a_link_is_refused_however_it_is_spelled(tmp_path, spelling):
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    (tmp_path / "run").symlink_to(tmp_path / "elsewhere")
    refused(f"{tmp_path}/{spelling}", r"RUN_DIR=.* is a link")
    assert not list((tmp_path / "elsewhere").iterdir())


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "run").touch()
    refused(tmp_path / "run", r"RUN_DIR=.* cannot be used: Not a directory")


def test_a_folder_of_another_user_is_refused_and_not_removed(tmp_path, monkeypatch):
    folder = tmp_path / "run"
    folder.mkdir(mode=0o700)
    (folder / "lock").touch()
    monkeypatch.setattr(os, "geteuid", lambda: folder.stat().st_uid + 1)  # as if this process were somebody else's
    refused(folder, rf"RUN_DIR=.* belongs to another user \(uid {folder.stat().st_uid}\)")
    rundir.remove_if_unclaimed(str(folder))
    assert folder.exists()


def test_a_folder_that_anybody_may_replace_is_refused_unless_it_is_sticky(tmp_path):
    public = tmp_path / "public"
    public.mkdir()
    public.chmod(0o777)
    refused(public / "run", rf"RUN_DIR=.* lies in {public}, where every user may replace it")
    refused(public / "a" / "run", rf"RUN_DIR=.* lies in {public}, where every user may replace it")
    public.chmod(0o1777)
    assert claimed(public / "run") == 0o700


def test_a_lock_that_is_a_link_empties_nothing(tmp_path):
    precious, folder = tmp_path / "precious", tmp_path / "run"
    precious.write_text("of the server's user")
    folder.mkdir(mode=0o700)
    (folder / "lock").symlink_to(precious)
    refused(folder, r"RUN_DIR=.* cannot be used")
    rundir.remove_if_unclaimed(str(folder))
    assert precious.read_text() == "of the server's user"
    assert folder.exists()


def test_a_lock_that_is_there_keeps_its_contents(tmp_path):
    tmp_path.joinpath("run").mkdir(mode=0o700)
    lock = tmp_path / "run" / "lock"
    lock.write_text("as it was")
    claimed(tmp_path / "run")
    assert lock.read_text() == "as it was"


def test_a_server_does_not_start_in_a_folder_that_others_may_use(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    folder.chmod(0o755)
    with Server(INFERENCE_ENGINE="echo", RUN_DIR=folder, wait=False) as server:
        assert server.process.wait(30) == 2
        assert f"Not started: RUN_DIR='{folder}' is open to other users (mode 0755). Run: chmod 700 {folder}" in server.output


def test_a_folder_that_cannot_be_made_is_one_line_that_says_so(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match=r"RUN_DIR=.* cannot be used"):
        rundir.claim(str(tmp_path / "file" / "below"))


@pytest.mark.slow
def test_a_second_instance_with_the_same_folder_does_not_start_and_the_first_goes_on(tmp_path):
    folder = tmp_path / "run"
    with Server(INFERENCE_ENGINE="echo", RUN_DIR=folder) as first:
        with Server(INFERENCE_ENGINE="echo", RUN_DIR=folder, wait=False) as second:
            assert second.process.wait(30) == 2
            assert "RUN_DIR=" in second.output
            assert "in use by another instance" in second.output
        assert first.client().completions.create(model="echo", prompt="x").choices[0].text == "x"
    assert not folder.exists()


@pytest.mark.parametrize(
    ("system", "caches", "chosen"),
    [
        ("darwin", "/private/C", "/private/C"),
        ("darwin", None, "/temporary"),
        ("darwin", "/" + "c" * 100, "/temporary"),
        ("linux", "/private/C", "/temporary"),
    ],
)
def test_a_mac_has_its_folder_where_nothing_is_removed(monkeypatch, system, caches, chosen):
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(os, "confstr", lambda name: caches)
    monkeypatch.setattr(tempfile, "gettempdir", lambda: "/temporary")
    made = []
    monkeypatch.setattr(tempfile, "mkdtemp", lambda prefix, dir: made.append(dir) or "")
    monkeypatch.setattr(rundir, "_make", lambda path: (_ for _ in ()).throw(OSError(1, "seen")))
    with pytest.raises(SettingsError):
        rundir.claim("")
    assert made == [chosen]


def test_what_lies_there_is_kept_fresh_and_as_old_as_it_was(tmp_path):
    long_ago = time.time() - 30 * 86_400
    (tmp_path / "kept").mkdir()
    for path in (tmp_path / "lock", tmp_path / "kept" / "log"):
        path.touch()
        os.utime(path, (long_ago, long_ago))
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        os.utime(tmp_path / "s", (long_ago, long_ago))
        rundir.keep_fresh(str(tmp_path))
        for name in ("lock", "kept", "kept/log", "s"):
            assert (tmp_path / name).stat().st_atime > time.time() - 60, name
    assert (tmp_path / "kept" / "log").stat().st_mtime == pytest.approx(long_ago)
