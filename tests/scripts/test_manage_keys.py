"""scripts/manage_keys.py as an operator runs it."""

import json
import os
import re
import subprocess
import sys
import time

import pytest

from src.settings import ROOT


@pytest.fixture
def run(tmp_path):
    (tmp_path / "logs").mkdir()

    def run(*words: str, **environ: str) -> subprocess.CompletedProcess[str]:
        environ = {**os.environ, "API_KEYS_FILE": str(tmp_path / "keys.json"), "LOG_DIR": str(tmp_path / "logs"), **environ}
        command = [sys.executable, "scripts/manage_keys.py", *words]
        return subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=60)

    return run


def test_a_key_is_shown_once_and_its_hash_is_kept(run, tmp_path):
    done = run("add", "alice", "--requests-per-minute", "60", "--model", "smollm2-135m", "--expires", "90d")
    secret, told = done.stdout.splitlines()
    assert re.fullmatch(r"sk-[A-Za-z0-9_-]{43}", secret)
    assert told == "This is the key of alice. It is not shown again."
    path = tmp_path / "keys.json"
    assert path.stat().st_mode & 0o777 == 0o600
    assert secret not in path.read_text()
    (key,) = json.loads(path.read_text())["keys"]
    assert (key["name"], key["scopes"], key["models"], key["requests_per_minute"]) == ("alice", ["inference"], ["smollm2-135m"], 60)
    assert abs(key["expires"] - time.time() - 90 * 86400) < 100


def test_list_shows_what_a_key_may_and_no_key(run):
    run("add", "alice", "--tokens-per-minute", "0")
    run("add", "ops", "--scope", "admin", "--scope", "monitor", "--expires", "2020-01-31")
    listed = run("list").stdout
    assert re.search(r"^alice +scopes=inference created=\d{4}-\d\d-\d\d tokens_per_minute=0$", listed, re.MULTILINE)
    assert re.search(r"^ops +scopes=admin,monitor created=\S+ expired=2020-01-31$", listed, re.MULTILINE)
    assert "sk-" not in listed


def test_rotate_gives_another_key_and_revoke_ends_it(run):
    first = run("add", "alice").stdout.splitlines()[0]
    second = run("rotate", "alice").stdout.splitlines()[0]
    assert first != second
    assert run("revoke", "alice").stdout == "alice is revoked.\n"
    assert run("list").stdout == ""


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["revoke", "none"], "There is no key 'none'"),
        (["add", "a b"], "name is wrong"),
        (["add", "x", "--scope", "admin", "--model", "m"], "models is wrong"),
        (["add", "x", "--concurrent", "-1"], "concurrent is wrong"),
        (["--file", "/nowhere/keys.json", "add", "x"], "/nowhere"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(run, words, told):
    done = run(*words)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert done.stderr.startswith("manage_keys.py: ")
    assert told in done.stderr


def test_without_a_file_it_says_how_to_name_one(run):
    done = run("list", API_KEYS_FILE="")
    assert done.returncode == 1
    assert "put API_KEYS_FILE=keys.json into .env" in done.stderr


def test_a_date_that_is_none_is_told(run):
    done = run("add", "x", "--expires", "soon")
    assert done.returncode == 2
    assert "expected days, like 90d, or a date" in done.stderr


def test_each_act_has_a_line_in_the_audit_log_and_no_key(run, tmp_path):
    secret = run("add", "alice").stdout.splitlines()[0]
    run("revoke", "alice")
    run("revoke", "alice")
    audit = (tmp_path / "logs" / "audit.log").read_text()
    assert re.findall(r"act='(\w+) key' by='uid \d+' name=(\w+)", audit) == [("add", "alice"), ("revoke", "alice")]
    assert secret not in audit


def test_what_it_makes_is_for_its_user_alone_whatever_the_umask(tmp_path):
    (tmp_path / "logs").mkdir()
    environ = {**os.environ, "API_KEYS_FILE": str(tmp_path / "keys.json"), "LOG_DIR": str(tmp_path / "logs")}
    subprocess.run([sys.executable, "scripts/manage_keys.py", "add", "alice"], cwd=ROOT, env=environ, umask=0, check=True, timeout=60)
    made = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {"keys.json", ".keys.json.lock", "audit.log"} <= {path.name for path in made}
    assert not [path for path in made if path.stat().st_mode & 0o077]
