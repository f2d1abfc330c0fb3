"""A test whose program is missing skips with the command that installs it, and the run says how many did."""

import os
import re
import subprocess
import sys

import pytest

from src.settings import ROOT
from tests.support import programs

NEEDS_A_PROGRAM = "tests/deploy/test_container.py::test_the_compose_file_is_valid_and_asks_for_a_key"


@pytest.mark.slow
def test_a_machine_without_the_programs_gets_skips_that_are_counted():
    pytest_run = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-rs", NEEDS_A_PROGRAM]
    environ = {**os.environ, "REQUIRE_PROGRAMS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.programs", *pytest_run], cwd=ROOT, env=environ, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    remedy = programs.remedy(["docker-compose"])
    assert f"docker-compose is not installed ({remedy})" in done.stdout
    assert f"Tests skipped because a program is not installed: 1, of docker-compose (1). To run them: {remedy}\n" in done.stdout
    assert re.search(r"1 skipped in [\d.]+s", done.stdout.splitlines()[-1])


@pytest.mark.macos
@pytest.mark.parametrize(
    ("system", "names", "remedy"),
    [
        ("linux", ["nginx", "prlimit"], "Debian, Ubuntu: apt-get install nginx-light util-linux"),
        ("darwin", ["nginx", "promtool", "prometheus"], "macOS: brew install nginx prometheus"),
        ("darwin", ["nginx", "prlimit"], "macOS: brew install nginx"),
        ("darwin", ["systemd-analyze"], "what it tests is not for macOS"),
    ],
)
def test_the_remedy_is_of_the_system_that_the_tests_run_on(monkeypatch, system, names, remedy):
    monkeypatch.setattr(sys, "platform", system)
    assert programs.remedy(names) == remedy


def test_where_programs_are_required_a_missing_one_fails_the_test(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("REQUIRE_PROGRAMS", raising=False)
    with pytest.raises(pytest.skip.Exception):
        programs.program("nginx")
    monkeypatch.setenv("REQUIRE_PROGRAMS", "1")
    with pytest.raises(pytest.fail.Exception, match="nginx is not installed"):
        programs.program("nginx")


def test_a_program_for_administrators_is_found_beside_those_for_users(monkeypatch, tmp_path):
    place = tmp_path / "sbin" / "nginx"
    for folder in ("bin", "sbin"):
        (tmp_path / folder).mkdir()
    place.write_text("#!/bin/sh\n")
    place.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert programs.program("nginx") == str(place)


def test_the_list_has_every_program_that_tests_ask_for():
    files = [path.read_text() for path in (ROOT / "tests").rglob("*.py")]
    wanted = {name for text in files for name in re.findall(r'\bprogram\("([^"]+)"\)', text)}
    assert "nginx" in wanted
    assert wanted <= set(programs.OPTIONAL)
