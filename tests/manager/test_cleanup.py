"""What is left behind is removed, and what somebody holds is not."""

import fcntl
import os
import subprocess
import sys
import tempfile
import time
from datetime import date, timedelta
from pathlib import Path

import pytest

from src.manager.cleanup import clean
from src.settings import ROOT, Settings
from tests.support.server import Server, wait_until

DAY = 86_400


@pytest.fixture
def tmp_path():
    """A short one: pytest's own may be too long for RUN_DIR, and so may the system's."""
    with tempfile.TemporaryDirectory(prefix="cleanup-", dir="/tmp") as folder:
        yield Path(folder)


@pytest.fixture
def settings(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path / "tmp"))
    for folder in ("tmp", "logs", "models/.downloads"):
        (tmp_path / folder).mkdir(parents=True)
    return Settings(models_dir=str(tmp_path / "models"), log_dir=str(tmp_path / "logs"), run_dir=str(tmp_path / "tmp" / "inference-own"))


def download(settings: Settings, name: str, days: float):
    folder = settings.models_path / ".downloads" / name
    folder.mkdir()
    (folder / "part.gguf").write_text("half")
    for path in (folder / "part.gguf", folder):
        os.utime(path, (time.time() - days * DAY,) * 2)
    return folder


def run_dir(settings: Settings, name: str):
    folder = settings.log_path.parent / "tmp" / name
    folder.mkdir(mode=0o700)
    (folder / "lock").touch()
    (folder / "runner-1.sock").touch()
    return folder


def test_logs_past_their_days_go_also_where_nothing_is_logged(settings):
    for ago in (29, 30, 31, 400):
        (settings.log_path / f"errors.log.{(date.today() - timedelta(days=ago)).isoformat()}").touch()
    (settings.log_path / "errors.log").touch()
    list(clean(settings))
    assert len(list(settings.log_path.iterdir())) == 3


CLEAN = (
    "import sys; from src.manager.cleanup import clean; from src.settings import Settings; "
    "list(clean(Settings(log_dir=sys.argv[1], log_max_bytes=int(sys.argv[2])))); print('after', file=sys.stderr)"
)


@pytest.mark.parametrize(
    ("place", "most", "stays"), [("logs", 1000, False), ("logs", 0, True), ("logs", 3000, True), ("models", 1000, True)]
)
def test_what_launchd_writes_among_the_logs_does_not_grow_for_ever(settings, tmp_path, place, most, stays):
    printed = tmp_path / place / "launchd.log"
    with printed.open("ab") as output:
        output.write(b"x" * 2000)
        output.flush()
        command = [sys.executable, "-c", CLEAN, str(tmp_path / "logs"), str(most)]
        subprocess.run(command, cwd=ROOT, stderr=output, check=True, timeout=60)
    assert printed.read_bytes() == b"x" * 2000 * stays + b"after\n"


def test_downloads_that_nobody_goes_on_with_go(settings):
    old, new = download(settings, "old", 8), download(settings, "new", 6)
    assert list(clean(settings)) == [f"{old} (untouched for 7 days)"]
    assert (old.exists(), new.exists()) == (False, True)


def test_a_download_that_a_process_is_at_stays(settings):
    old = download(settings, "old", 100)
    with open(old.with_name("old.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert list(clean(settings)) == []
        assert old.exists()
    assert list(clean(settings)) != []
    assert not old.exists()


def test_folders_of_servers_that_were_killed_go_and_those_of_others_stay(settings, tmp_path):
    dead, own, alive = run_dir(settings, "inference-dead"), run_dir(settings, "inference-own"), run_dir(settings, "inference-alive")
    starting, other = tmp_path / "tmp" / "inference-starting", tmp_path / "tmp" / "something"
    starting.mkdir(mode=0o700)
    other.mkdir()
    (tmp_path / "tmp" / "inference-link").symlink_to(other)
    code = "import sys; from src import rundir; rundir.claim(sys.argv[1]); print(flush=True); sys.stdin.read()"
    words = [sys.executable, "-c", code, str(alive)]
    with subprocess.Popen(words, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        assert server.stdout
        server.stdout.readline()
        assert list(clean(settings)) == [f"{dead} (its server was killed)"]
    assert not dead.exists()
    assert all(folder.exists() for folder in (own, alive, starting, other))


@pytest.mark.slow
def test_a_running_server_holds_its_folder_and_one_that_was_killed_leaves_it_to_the_next(tmp_path):
    environ = {"TMPDIR": str(tmp_path)}
    with Server(INFERENCE_ENGINE="echo", **environ) as killed:
        (folder,) = tmp_path.glob("inference-*")
        killed.kill()
    assert folder.exists()
    code = "from src.manager.cleanup import clean; from src.settings import Settings; print(*clean(Settings(run_dir='/nowhere')))"
    with Server(INFERENCE_ENGINE="echo", **environ) as server:
        wait_until(lambda: f"Removed what was left behind: {folder}" in server.log("app"), what="the folder's removal")
        assert not folder.exists()
        (own,) = tmp_path.glob("inference-*")
        told = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, env={**os.environ, **environ}, capture_output=True, text=True, check=True
        )
        assert str(own) not in told.stdout
        assert own.exists()


def test_stored_responses_go_when_nobody_gets_them_any_more(settings):
    folder = Path(settings.run_dir, "responses", "owner")
    folder.mkdir(parents=True)
    for name, age in (("old", settings.response_store_seconds + 1), ("young", 1)):
        (folder / name).touch()
        os.utime(folder / name, (time.time() - age, time.time() - age))
    assert list(clean(settings)) == []
    assert [path.name for path in folder.iterdir()] == ["young"]
