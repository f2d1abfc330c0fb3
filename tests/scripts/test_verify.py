"""scripts/verify.py against a server that it did not start: a table, the reasons of what failed, and a status."""

import json
import re
import subprocess
import sys

import pytest
from conformance_table import aligned

from src.settings import ROOT
from tests.support.server import Server, free_port

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server():
    with Server(INFERENCE_ENGINE="echo", disposable=True) as server:
        yield server


def verify(url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "scripts" / "verify.py"), url, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)


def test_what_passes_is_a_green_row(server, tmp_path):
    done = verify(server.url, "--name", "theirs", "--only", "test_models_routes", "--json", str(tmp_path / "results.json"))
    assert done.returncode == 0, done.stdout + done.stderr
    header, _, *rows = done.stdout.split("\n\n")[-1].splitlines()
    assert header.split() == ["feature", "cases", "theirs"]
    assert any(re.fullmatch(r"models routes +\d+ +✓", row) for row in rows)
    results = json.loads((tmp_path / "results.json").read_text())
    assert set(results["theirs"]["models routes"].values()) == {"passed"}


def test_what_fails_is_told_with_its_reason(server):
    done = verify(server.url, "--name", "theirs", "--only", "test_without_a_seed_answers_differ")  # the echo engine draws nothing
    assert done.returncode == 1
    assert "test_sampling::test_without_a_seed_answers_differ\n    assert 1 > 1\n" in done.stdout
    assert "seed     1      0 of 1" in done.stdout


def test_a_server_that_is_not_there_is_told_at_once():
    done = verify(f"http://127.0.0.1:{free_port()}")
    assert (done.returncode, done.stdout) == (2, "")
    assert "cannot be reached" in done.stderr


def test_a_table_for_people_has_its_columns_in_line():
    assert aligned("| a | long name |\n|---|---|\n| longer | ✓ |") == "a       long name\n-----------------\nlonger  ✓"
