"""What a user sees of an installation: one line a phase, and the commands' output where one of them fails."""

import os
import pty
import re
import subprocess
from pathlib import Path

import pytest

from src.settings import ROOT


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts/phase.sh").symlink_to(ROOT / "scripts/phase.sh")
    return tmp_path


def bash(folder: Path, script: str, **options: object) -> subprocess.CompletedProcess[str]:
    environ = {name: value for name, value in os.environ.items() if name != "VERBOSE"}
    command = ["bash", "-euo", "pipefail", "-c", f". scripts/phase.sh; {script}"]
    return subprocess.run(command, cwd=folder, env=environ, text=True, timeout=60, **options)


def test_a_phase_is_one_line_and_its_output_is_in_the_log(folder):
    done = bash(folder, "phase 'packages: a b' echo many words; expected=90 phase building true", capture_output=True)
    assert done.returncode == 0
    assert re.fullmatch(r"packages: a b … 0:0\d\nbuilding \(about 1:30\) … 0:0\d\n", done.stdout)
    assert done.stderr == ""
    assert (folder / "logs/install.log").read_text() == "== packages: a b\nmany words\n== building (about 1:30)\n"


def test_what_a_phase_that_fails_has_printed_is_shown_with_the_logs_path_and_ends_the_script(folder):
    script = "phase first echo fine; phase second bash -c 'echo the reason; exit 3'; echo not reached"
    done = bash(folder, script, capture_output=True)
    assert done.returncode == 3
    assert re.fullmatch(r"first … 0:0\d\nsecond … failed after 0:0\d\n", done.stdout)
    assert done.stderr == f"the reason\nThe output above is also in {folder}/logs/install.log\n"


@pytest.mark.parametrize(("command", "status"), [("echo a; exit 3", 3), ("echo a", 0)])
def test_verbose_shows_the_output_as_it_comes_and_keeps_the_status(folder, command, status):
    done = bash(folder, f"VERBOSE=1; phase first bash -c '{command}'", capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (status, "first\na\n", "")
    assert (folder / "logs/install.log").read_text() == "== first\na\n"


def test_on_a_terminal_the_time_ticks(folder):
    ours, theirs = pty.openpty()
    # The phase ends once the log has what this test writes after it has seen a tick.
    process = subprocess.Popen(
        ["bash", "-euo", "pipefail", "-c", ". scripts/phase.sh; phase waiting bash -c 'until [ -e seen ]; do sleep 0.1; done'; echo end"],
        cwd=folder, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs,
    )  # fmt: skip
    os.close(theirs)
    shown = ""
    try:
        while "end" not in shown:
            shown += os.read(ours, 1000).decode()
            if re.search(r"\rwaiting … 0:0\d", shown):
                (folder / "seen").touch()
        assert process.wait(20) == 0
    finally:
        process.kill()
        os.close(ours)
    assert re.search(r"\rwaiting … 0:\d\d\r\nend\r\n$", shown)


def test_without_a_log_folder_of_its_own_it_still_installs(folder):
    (folder / "logs").write_text("no folder")
    done = bash(folder, "phase first bash -c 'echo the reason; false'", capture_output=True)
    assert done.returncode == 1
    assert done.stderr.startswith("the reason\nThe output above is also in /")
    Path(done.stderr.split()[-1]).unlink()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: the folder is given to another user")
def test_root_writes_no_log_into_a_folder_of_another_user_who_may_have_put_a_link_there(folder):
    (folder / "logs").mkdir()
    (folder / "logs/install.log").symlink_to(folder / "elsewhere")
    os.chown(folder / "logs", 12345, 12345)
    done = bash(folder, "phase first echo a; phase second true; echo $install_log", capture_output=True)
    assert done.returncode == 0
    assert not (folder / "elsewhere").exists()
    log = Path(done.stdout.split()[-1])
    assert log.read_text() == "== first\na\n== second\n"
    log.unlink()
