"""What a Mac's first user sends: figures, and nothing of theirs. With what a Mac's commands print, as recorded in public reports."""

import os
import socket
import sys

import pytest

from src.manager import footprint, metal
from tools import mac_check, mac_service

pytestmark = pytest.mark.macos

RECORDED = {
    "sw_vers -productVersion": "15.4.1",
    "sysctl -n machdep.cpu.brand_string": "Apple M3 Ultra",
    "sysctl -n hw.memsize": "103079215104",
    "sysctl -n iogpu.wired_limit_mb": "0",
    "launchctl managername": "Aqua",
    "/usr/bin/memory_pressure -Q": "System-wide memory free percentage: 61%",
    "/usr/sbin/scutil --get ComputerName": "Jane's Mac Studio",
}


def recorded(command: list[str], seconds: float = 60) -> str:
    words = command[2] if command[0] == "/bin/sh" else " ".join(command)
    return RECORDED.get(words, "none (status 1)")


def test_elsewhere_it_says_that_it_is_for_macos(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(sys, "platform", "linux")
    assert mac_check.main(["--output", str(tmp_path / "out")]) == 2
    assert "for macOS" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_machine_is_told_and_what_it_has_not_is_too(monkeypatch):
    monkeypatch.setattr(mac_check, "run", recorded)
    lines = list(mac_check.machine())
    assert {"macOS: 15.4.1", "chip: Apple M3 Ultra", "efficiency cores: none (status 1)"} < set(lines)
    assert any(line.startswith("gunicorn: 2") for line in lines)


def test_a_command_that_fails_hangs_or_is_missing_is_an_answer():
    assert mac_check.run(["/bin/sh", "-c", "echo 1; echo 2"]) == "2"
    assert mac_check.run(["/bin/sh", "-c", "echo unknown oid >&2; exit 1"]) == "none (status 1: unknown oid)"
    assert mac_check.run(["/nowhere/vm_stat"]) == "none (FileNotFoundError)"
    assert mac_check.run(["/bin/sh", "-c", "exec sleep 60"], 0.1) == "none (TimeoutExpired)"


def test_no_name_of_the_user_or_the_machine_is_in_the_report(monkeypatch):
    def ask():
        yield "open /Users/jane/models/a.gguf by Jane at janes-mac.local, janeway stays"
        yield "Jane Doe's, on Jane's Mac Studio"

    names = {"/Users/jane": "~", "jane": "USER", "Jane Doe": "USER", "janes-mac.local": "HOST", "Jane's Mac Studio": "HOST", "": "USER"}
    text = mac_check.report({"Q?": ask}, names)
    assert text.startswith("== Q?\nopen ~/models/a.gguf by USER at HOST, janeway stays\nUSER's, on HOST\n\n")
    monkeypatch.setattr(mac_check, "run", recorded)
    assert mac_check.names_of_this_machine().keys() >= {"Jane's Mac Studio", os.path.expanduser("~"), socket.gethostname()}


def test_a_question_that_fails_keeps_no_other_from_being_asked():
    def fails():
        yield "so far"
        raise KeyError("device")

    text = mac_check.report({"First?": fails, "Second?": lambda: iter(["fine"])}, {})
    assert text.startswith("== First?\nso far\nFAILED: KeyError: 'device'\n\n== Second?\nfine\n\n")


def test_the_run_folders_show_how_long_nobody_has_touched_what(tmp_path):
    (tmp_path / "responses").mkdir()
    (tmp_path / "responses" / "resp_1").touch()
    (tmp_path / "lock").touch()
    os.utime(tmp_path / "lock", (3600, 0))
    lines = list(mac_check.run_folders(7200, [tmp_path / "gone", tmp_path]))
    assert "    lock: written 2.0 h ago, used 1.0 h ago" in lines
    assert lines[-1].startswith("    responses: ")
    assert lines[-1].endswith(", 1 in it")


@pytest.mark.slow
def test_a_whole_report_has_an_answer_to_each_question_and_no_word_of_a_chat(monkeypatch, tmp_path):
    """But for the system's own words, all is measured: a server, streams, a manager that is killed in the middle of one."""
    monkeypatch.setenv("INFERENCE_ENGINE", "echo")
    monkeypatch.setenv("ECHO_STEP_MS", "5")
    monkeypatch.setenv("A_SECRET", "s3cret")
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(footprint, "physical_bytes", lambda pid: 3 << 30)
    monkeypatch.setattr(metal, "working_set", lambda: 72 << 30)
    monkeypatch.setattr(metal, "free_bytes", lambda total: 40 << 30)
    monkeypatch.setattr(mac_check, "run", recorded)
    monkeypatch.setattr(mac_check.rundir, "private_folders", lambda: [tmp_path])
    monkeypatch.setattr(mac_service, "SLEEP_SECONDS", 0.5)
    monkeypatch.setattr(mac_service, "LOOKS", (0, 1))
    assert mac_check.main(["--model", "echo", "--sleep", "--output", str(tmp_path / "out")]) == 0
    text = (tmp_path / "out").read_text()
    assert "FAILED" not in text, text
    for found in (
        "Apple M3 Ultra", "before: free 40.00 GiB; System-wide memory free percentage: 61%", "physical footprint 3.00 GiB",
        "the model: engine echo", "four streams: ", "words of ", "in the logs: no trouble", "slept 0 s",
        "1 s after its end: free 40.00 GiB",
    ):  # fmt: skip
        assert found in text, text
    assert "context_length_exceeded" not in text
    killed = text.split("== Does a stream go on when the manager is killed?\n")[1].splitlines()
    assert killed[0].startswith("200 pieces"), killed
    assert killed[0].endswith("ended with length"), killed
    assert "ended with length" in killed[1] or "ended with stop" in killed[1]
    for never in ("word word", "s3cret", os.environ.get("HOME", "nobody's") + "/"):
        assert never not in text
