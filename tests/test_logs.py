"""Which record goes to which log, in what form, and what happens when several processes write or none can."""

import json
import logging
import os
import re
import subprocess
import sys
import time
from datetime import date, timedelta
from pathlib import Path

import pytest
from loguru import logger

from src import logs
from src.settings import ROOT, Settings

FILES = ("app", "api_requests", "model_operations", "system_metrics", "audit", "errors")
RECORD = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[+-]\d\d:?\d\d [A-Z]+ \w+\[\d+\] ")


@pytest.fixture(autouse=True)
def _close_sinks():
    yield
    logger.remove()
    logging.getLogger("gunicorn.error").handlers.clear()


def configure(folder: Path, **settings: object) -> None:
    logs.configure(Settings(log_dir=str(folder), **settings), "gateway")


def read(folder: Path, name: str) -> str:
    path = folder / f"{name}.log"
    return path.read_text() if path.exists() else ""


def logs_with(folder: Path, text: str) -> set[str]:
    return {name for name in FILES if text in read(folder, name)}


def test_each_record_goes_to_its_own_logs(tmp_path):
    configure(tmp_path)
    logs.app.info("of the app")
    logs.requests.info("of a request")
    logs.models.info("of a model")
    logs.metrics.info("of the system")
    logs.audit.info("of an admin")
    logs.models.error("a failed model")
    assert logs_with(tmp_path, "of the app") == {"app"}
    assert logs_with(tmp_path, "of a request") == {"api_requests"}
    assert logs_with(tmp_path, "of a model") == {"app", "model_operations"}
    assert logs_with(tmp_path, "of the system") == {"app", "system_metrics"}
    assert logs_with(tmp_path, "of an admin") == {"app", "audit"}
    assert logs_with(tmp_path, "a failed model") == {"app", "model_operations", "errors"}


def test_a_line_names_time_level_and_process(tmp_path):
    configure(tmp_path)
    logs.app.warning("careful")
    line = read(tmp_path, "app")
    assert RECORD.match(line)
    assert line.endswith(f" WARNING gateway[{os.getpid()}] careful\n")


def test_the_terminal_shows_app_and_models_only(tmp_path, capsys):
    configure(tmp_path)
    for name in ("app", "requests", "models", "metrics"):
        getattr(logs, name).info(f"of {name}")
    shown = capsys.readouterr().err.splitlines()
    assert [line.rsplit(" ", 1)[1] for line in shown] == ["app", "models"]
    assert re.match(r"^[\d-]+ [\d:]+ INFO +gateway: of app$", shown[0])


def test_the_level_holds_for_app_but_never_empties_the_other_logs(tmp_path, capsys):
    configure(tmp_path, log_level="ERROR")
    logs.app.info("quiet")
    logs.requests.info("counted")
    assert logs_with(tmp_path, "quiet") == set()
    assert logs_with(tmp_path, "counted") == {"api_requests"}
    assert capsys.readouterr().err == ""


def test_no_file_is_written_where_log_files_are_off(tmp_path, capsys):
    configure(tmp_path / "logs", enable_log_file=False)
    logs.app.info("only here")
    assert "only here" in capsys.readouterr().err
    assert not (tmp_path / "logs").exists()


def test_text_from_outside_cannot_start_a_line_or_steer_a_terminal(tmp_path, capsys):
    configure(tmp_path)
    logs.app.info("a\r\nb\x1b[2J\u2028c\x00\u202ed{e}%s")
    assert r"a\r\nb\x1b[2J\u2028c\x00\u202ed{e}%s" in read(tmp_path, "app")
    assert len(read(tmp_path, "app").splitlines()) == len(capsys.readouterr().err.splitlines()) == 1


def test_an_error_brings_its_traceback_without_local_variables(tmp_path, capsys):
    configure(tmp_path)

    def fail(prompt: str) -> None:
        raise ValueError("first\n2026-01-01T00:00:00.000+00:00 INFO gateway[1] forged\x1b")

    try:
        fail("canary")
    except ValueError:
        logs.app.exception("it failed")
    for text in (read(tmp_path, "errors"), read(tmp_path, "app"), capsys.readouterr().err):
        first, *rest = text.splitlines()
        assert "it failed" in first
        assert any("in fail" in line for line in rest)
        assert all(line.startswith("    ") for line in rest)
        assert "canary" not in text.replace('fail("canary")', "")  # the source line is there, the value is not
        assert "\x1b" not in text


def test_text_that_is_not_unicode_is_written_all_the_same(tmp_path):
    configure(tmp_path)
    logs.app.info("before \udcff after")
    logs.app.info("next")
    assert [line.split("] ")[1] for line in read(tmp_path, "app").splitlines()] == ["before ? after", "next"]


def test_facts_are_written_so_that_none_can_pass_for_another(tmp_path):
    configure(tmp_path)
    logs.write(logs.requests, id="a", route="GET /x y=1", model=None, dash="-", empty="", n=3, forged="a\nb key=x '")
    line = read(tmp_path, "api_requests").split("] ", 1)[1]
    assert line == "id=a route='GET /x y=1' model=- dash='-' empty='' n=3 forged=\"a\\nb key=x '\"\n"


def test_as_json_each_line_is_one_object_whatever_it_holds(tmp_path, capsys):
    configure(tmp_path, log_format="json")
    hostile = 'a\r\nb\x1b[2J\u2028\x85\udcff\u202e"{}<red>'
    logs.app.info("text {}", hostile)
    logs.write(logs.requests, id=hostile, model=None, status=200)
    try:
        raise ValueError(hostile)
    except ValueError:
        logs.app.exception("it failed")
    for text in (*(read(tmp_path, name) for name in ("app", "api_requests", "errors")), capsys.readouterr().err):
        assert text
        assert text.isascii()
        assert text.count("\n") == len(text.splitlines())
        for line in text.splitlines():
            json.loads(line)
    request = json.loads(read(tmp_path, "api_requests"))
    assert (request["id"], request["model"], request["status"], request["level"], request["log"]) == (
        hostile,
        None,
        200,
        "INFO",
        "api_requests",
    )
    failure = json.loads(read(tmp_path, "errors"))
    assert failure["message"] == "it failed"
    assert "Traceback" in failure["exception"]
    assert "ValueError" in failure["exception"]


def test_the_level_changes_at_once_here_and_soon_elsewhere(tmp_path):
    (tmp_path / "run").mkdir()
    settings = Settings(log_dir=str(tmp_path / "logs"), run_dir=str(tmp_path / "run"))
    code = """
import sys, time
from src import logs
from src.settings import Settings
logs.configure(Settings(log_dir=sys.argv[1], run_dir=sys.argv[2], enable_log_file=False), "other")
while True:
    logs.app.debug("heard")
    time.sleep(0.05)
"""
    words = [sys.executable, "-c", code, settings.log_dir, settings.run_dir]
    with subprocess.Popen(words, cwd=ROOT, stderr=subprocess.PIPE, text=True) as other:
        logs.configure(settings, "gateway")
        logs.app.debug("one")
        logs.change_level(settings, "DEBUG")
        logs.app.debug("two")
        assert other.stderr
        assert "heard" in other.stderr.readline()
        other.kill()
    assert [line.split("] ")[1] for line in read(tmp_path / "logs", "app").splitlines()] == ["two"]
    configure(tmp_path / "logs", run_dir=settings.run_dir)
    assert logs.level() == "DEBUG", "also of a process that starts later"


def test_configuring_again_replaces_what_was_before(tmp_path, capsys):
    configure(tmp_path / "one")
    configure(tmp_path / "two")
    logs.app.info("once")
    assert (read(tmp_path / "one", "app"), read(tmp_path / "two", "app").count("once")) == ("", 1)
    assert capsys.readouterr().err.count("once") == 1
    assert len(logging.getLogger("gunicorn.error").handlers) == 1


def test_gunicorns_own_records_go_to_the_files_only(tmp_path, capsys):
    configure(tmp_path)
    try:
        raise KeyError("in a worker")
    except KeyError:
        logging.getLogger("gunicorn.error").exception("Error handling request %s", "/v1/{models}\n")
    assert logs_with(tmp_path, r"Error handling request /v1/{models}\n") == {"app", "errors"}
    assert "KeyError" in read(tmp_path, "errors")
    assert "Error handling" not in capsys.readouterr().err


def test_a_folder_that_cannot_be_made_is_told_once_and_serving_goes_on(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    configure(tmp_path / "file" / "logs")
    logs.app.info("still here")
    lines = capsys.readouterr().err.splitlines()
    assert sum("logs are not written to" in line for line in lines) == 1
    assert "Not a directory" in lines[0]
    assert lines[1:] == [line for line in lines if "still here" in line]


def test_a_folder_that_goes_away_is_told_once_and_used_again_when_it_is_back(tmp_path, capsys):
    folder = tmp_path / "logs"
    configure(folder)
    logs.app.info("one")
    folder.rename(tmp_path / "away")
    for _ in range(3):
        logs.app.error("nowhere")
    folder.mkdir()
    logs.app.info("back")
    assert capsys.readouterr().err.count("logs are not written to") == 1
    assert "back" in read(folder, "app")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
def test_a_full_disk_is_told_once(tmp_path, capsys):
    for name in FILES:
        (tmp_path / f"{name}.log").symlink_to("/dev/full")
    configure(tmp_path)
    for _ in range(3):
        logs.requests.info("lost")
        logs.app.error("lost in two")
    told = capsys.readouterr().err
    assert told.count("logs are not written to") == 1
    assert "No space left" in told
    assert "Traceback" not in told


def test_logs_older_than_the_days_set_are_removed_at_the_rollover(tmp_path):
    def day(ago: int) -> str:
        return (date.today() - timedelta(days=ago)).isoformat()

    for name in ("app", "errors"):
        for ago in (2, 3, 4, 400):
            (tmp_path / f"{name}.log.{day(ago)}").write_text("old")
    (tmp_path / "app.log").write_text("yesterday's\n")
    (tmp_path / "notes.txt").write_text("not a log")
    # The time of the next rollover, as a process that stopped yesterday left it: today's first second.
    midnight = int(time.mktime(date.today().timetuple()))
    (tmp_path / ".__app.lock").write_text(str(midnight))
    configure(tmp_path, log_retention_days=3)
    logs.app.info("today's")
    kept = {path.name for path in tmp_path.iterdir() if not path.name.startswith(".")}
    assert kept == {"app.log", f"app.log.{day(1)}", "notes.txt"} | {
        f"{name}.log.{day(ago)}" for name in ("app", "errors") for ago in (2, 3)
    }
    assert (tmp_path / f"app.log.{day(1)}").read_text() == "yesterday's\n"


def test_a_flood_writes_no_more_than_the_bytes_set_and_the_newest_lines_stay(tmp_path):
    configure(tmp_path, log_max_bytes=80_000)
    logs.audit.info("before the flood")
    for number in range(3000):
        logs.write(logs.requests, id=number, route="x" * 100)
    files = list(tmp_path.glob("api_requests.log*"))
    assert 40_000 < sum(file.stat().st_size for file in files) <= 80_000
    assert "id=2999 " in read(tmp_path, "api_requests")
    assert logs_with(tmp_path, "before the flood") == {"app", "audit"}


WRITER = """
import sys, time
if sys.argv[2] == "greenlets":
    import gevent.monkey
    gevent.monkey.patch_all()
from pathlib import Path
from loguru import logger
from src import logs

logger.remove()
logger.configure(extra={"process": "writer", "log": "app"})
logger.add(logs.LogFile(Path(sys.argv[1], "app.log"), 1, int(sys.argv[3]), when="S"), format=logs._FILE_LINE)

def write(writer, lines):
    for number in range(lines):
        logs.app.info(f"{writer} {number} " + "x" * 200)
        if number % 50 == 49:
            time.sleep(0.05)  # so that the run crosses several rollovers

if sys.argv[2] == "greenlets":
    import gevent
    gevent.joinall([gevent.spawn(write, writer, 50) for writer in range(40)], raise_error=True)
else:
    write(0, 2000)
"""


@pytest.mark.slow
@pytest.mark.parametrize("kinds", [["plain"] * 4, ["greenlets", "greenlets", "plain", "plain"]], ids=["processes", "greenlets"])
def test_processes_that_write_at_once_lose_no_line_and_tear_none(tmp_path, kinds):
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), kind, "4000000"], cwd=ROOT, stderr=subprocess.PIPE, text=True)
        for kind in kinds
    ]
    assert [(writer.communicate(timeout=100)[1], writer.returncode) for writer in writers] == [("", 0)] * 4
    files = list(tmp_path.glob("app.log*"))
    lines = [line for file in files for line in file.read_text().splitlines()]
    assert len(files) > 1, "no rollover happened"
    assert len(lines) == len(set(lines)) == 4 * 2000
    assert all(RECORD.match(line) and line.endswith(" " + "x" * 200) for line in lines)
