"""scripts/report: what helps is in it; prompts, keys, tokens and home folders are not, whatever the logs and settings hold."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import report_file
import report_machine
import report_parts
from report_secrets import REMOVED, Secrets, home_folders, known
from report_words import Words

from src.settings import ROOT
from tests.support.server import Server

KEY = "sk-yl8ABdXd0oosM9Kdu2G5bvZrA0evcyD_L6cjkzo9PG8"
# Nothing of these may be in any report.
SECRETS = [KEY, "hunter2", "Zq7-opaque-Value", "wharfinger", "lighthouse", "alice", "4111 1111", "tangerine", "Kx9secret"]
PROMPT = "Tell the wharfinger that the lighthouse password is tangerine, card 4111 1111 1111 1111"


@pytest.fixture(scope="module")
def words():
    return Words(ROOT)


def of_text(message: str, exception: str = "") -> str:
    """As src/logs.py writes it."""
    return f"2026-11-28T12:00:00.000+0000 ERROR runner[77] {message}\n" + "".join(f"    {line}\n" for line in exception.splitlines())


def of_json(message: str, exception: str = "") -> str:
    record = {"time": "2026-11-28T12:00:00.000+00:00", "level": "ERROR", "log": "app", "process": "runner", "pid": 77, "message": message}
    return json.dumps({**record, **({"exception": exception} if exception else {})}) + "\n"


def traceback_of(text: str) -> str:
    """One with frames of ours, of Python's and of files that are not there."""
    return f"""Traceback (most recent call last):
  File "{ROOT}/src/manager/memory.py", line 70, in fit
    raise ModelDoesNotFit("{PROMPT}")
  File "{json.__file__}", line 346, in loads
    return _default_decoder.decode(s)
  File "/home/alice/lighthouse.py", line 3, in wharfinger
    tangerine()
  File "{ROOT}/src/manager/memory.py", line 1, in hunter2
    pass
RuntimeError: {text}

During handling of the above exception, another exception occurred:

my.own.LighthouseError: {PROMPT}
"""


HOSTILE = [
    PROMPT,
    f"the prompt was: {PROMPT!r}",
    f"needs 12.3 GiB {PROMPT}",
    f"Authorization: Bearer {KEY}",
    "GET https://alice:hunter2@example.org/models?token=Kx9secret#lighthouse",
    "redis://:hunter2@10.0.0.1:6379/0 cannot be reached",
    "pip index https://hunter2@example.org/simple",
    f"x-api-key={KEY}; password: hunter2",
    "/home/alice/models/lighthouse.gguf and /Users/alice/x cannot be read",
    "No such file: '/Users/alice/Documents/wharfinger.txt'",
    '{"api_key": "hunter2", "messages": [{"content": "lighthouse"}]}',
    "line one\\nTraceback wharfinger",
    f"model_name is not valid: {PROMPT} is not valid",
    "wharfinger" * 5000,
    "1234",
]


@pytest.mark.parametrize("write", [of_text, of_json])
@pytest.mark.parametrize("message", HOSTILE, ids=range(len(HOSTILE)))
def test_of_hostile_errors_only_our_own_words_come_out(write, message, words):
    told = "\n".join(report_parts.records(write(message, traceback_of(message)), words))
    assert not [secret for secret in SECRETS if secret in told]
    assert "2026-11-28T12:00:00.000+00" in told
    assert "ERROR runner: " in told
    frames = [line.strip() for line in told.splitlines() if ".py:" in line]
    assert frames == ["src/manager/memory.py:70 fit", "json/__init__.py:346 loads"]
    assert "RuntimeError" in told


def test_what_is_no_record_is_no_part_of_one(words):
    lines = (
        "a prompt on a line of its own\n[1, 2]\n{}\n" + '{"time": "wharfinger", "level": 1, "process": [], "pid": 2}\n{"a":' + "[" * 100_000
    )
    assert report_parts.records(lines, words) == []


def test_words_of_ours_and_the_figures_between_them_are_kept(words):
    said = (
        "big needs 12.3 GiB (weights 11.0, KV cache 1.0 for 1 × 4096 tokens, overhead 0.3), but 8.0 GiB are free beside the reserve of "
        "0.5 (MEMORY_RESERVE). Not even one short sequence would fit: use a smaller model or quantisation, or free memory."
    )
    kept = words.keep(said)
    assert "GiB are free beside the" in kept
    assert "Not even one short sequence would fit: use a smaller model or quantisation, or free memory." in kept
    assert "big" not in kept
    assert words.exception("src.errors.ModelDoesNotFit: big") == "ModelDoesNotFit: …"
    assert words.exception("torch.OutOfMemoryError: big") == "…"
    assert words.keep("unable to reach MTLCompilerService") == "unable to reach MTLCompilerService"
    # A number is kept between two phrases only, and no phrase in the middle of a word.
    phrase = "GiB are free beside the reserve of"
    assert words.keep(f"{phrase} 17 {phrase} 18") == f"{phrase} 17 {phrase} …"
    assert words.keep(f"{phrase} 4111 1111 {phrase}") == f"{phrase} … {phrase}"
    assert words.keep(f"x{phrase} {phrase}x") == "…"


def test_a_place_in_a_file_of_the_users_own_is_left_out(words, tmp_path):
    (tmp_path / "lighthouse.py").write_text("def wharfinger(): ...")
    assert words.frame(f'  File "{tmp_path}/lighthouse.py", line 1, in wharfinger') == ""


def test_a_home_folder_in_an_unusual_place_is_replaced(place, monkeypatch):
    monkeypatch.setenv("HOME", "/data/people/alice")
    told = report_file.report(place, {"MODELS_DIR": "/data/people/alice/models", "LOG_DIR": str(place / "logs")})
    assert "MODELS_DIR=~/models\n" in told


ENVIRON = {
    "API_KEY": KEY,
    "RATE_LIMIT_STORAGE": "redis://:hunter2@localhost/0",
    "MODELS_DIR": "/home/alice/models",
    "DEFAULT_MODEL": "Zq7-opaque-Value",  # a secret of another name, in the wrong place
    "HUGGING_FACE_TOKEN": "Zq7-opaque-Value",
    "ALLOWED_HOSTS": "lighthouse.example.org",
    "CORS_ORIGINS": "https://wharfinger.example.org",
    "TLS_CERTFILE": "tangerine.pem",
    "TLS_KEYFILE": "tangerine.key",
    "ECHO_FAULT": "crash lighthouse",
    "HOST": "wharfinger.example.org",
    "CONTEXT_LENGTH": "8192",
    "KV_CACHE_TYPE": "q8_0",
}


@pytest.fixture
def place(tmp_path, monkeypatch, words):
    """An installation with a hostile log."""
    (tmp_path / "logs/8001").mkdir(parents=True)
    (tmp_path / "logs/8001/errors.log").write_text("".join(of_text(each, traceback_of(each)) for each in HOSTILE))
    for name in ("src", "docs"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.setattr(report_file, "Words", lambda root: words)  # it takes a second to read them
    monkeypatch.setattr(report_parts, "status", lambda settings, words: (["not asked"], ""))
    return tmp_path


def test_of_hostile_settings_only_numbers_and_chosen_words_come_out(place):
    told = report_file.report(place, {**ENVIRON, "LOG_DIR": str(place / "logs")})
    assert not [secret for secret in SECRETS if secret in told]
    settings = told.split("== Settings\n")[1].split("\n\n")[0].splitlines()
    assert {"API_KEY is set", "ALLOWED_HOSTS is set", "HOST is set", "CONTEXT_LENGTH=8192", "KV_CACHE_TYPE=q8_0"} < {*settings}
    assert "MODELS_DIR=~/models" in settings
    assert f"DEFAULT_MODEL={REMOVED}" in settings
    assert told.count("ERROR runner: ") == len(HOSTILE)


@pytest.mark.parametrize(
    "line", [f"PORT={KEY}", f"API_KEY={KEY}\nPORT=lighthouse", "hunter2 wharfinger", f'LOG_LEVEL="{PROMPT}"', "HOST=\xff"]
)
def test_settings_that_are_wrong_are_named_and_not_shown(place, line):
    (place / ".env").write_text(line, encoding="latin-1")
    told = report_file.report(place, {"LOG_DIR": str(place / "logs")})
    assert not [secret for secret in SECRETS if secret in told]


@pytest.mark.parametrize("text", [each for each in HOSTILE if KEY in each or "hunter2" in each or "alice" in each])
def test_the_last_look_knows_secrets_by_their_shape_alone(text):
    told = Secrets([], []).without(text)
    assert not [secret for secret in (KEY, "hunter2", "Kx9secret", "alice") if secret in told]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("/home/alice/models/a.gguf", "~/models/a.gguf"),
        ("file:///Users/alice/x", "file://~/x"),
        ("/private/var/root/x and /root/y", "~/x and ~/y"),
        ("/data/people/alice/z", "~/z"),
        ("/data/people/alice2/z", "/data/people/alice2/z"),
        ("/opt/inference/models", "/opt/inference/models"),
        ("eyJhbGciOi.eyJzdWIi.abc", REMOVED),
        ("mistral-small-24b-instruct-2501-bf16", "mistral-small-24b-instruct-2501-bf16"),
        ("0123456789abcdef0123456789abcdef", REMOVED),
        ("alice@example.org", REMOVED),
        ("https://h/x?sig=Kx9#y z", f"https://h/x?{REMOVED} z"),
        ("sent Bearer opaque", f"sent Bearer {REMOVED}"),
        ("hf_abcdefghij is", f"{REMOVED} is"),
    ],
)
def test_home_folders_and_what_looks_like_a_key_are_replaced_and_nothing_else(text, told):
    assert Secrets([], ["/data/people/alice", "/"]).without(text) == told


def test_secrets_are_known_by_the_names_of_variables_and_in_addresses():
    assert set(known({"MY_TOKEN": "abcdef", "X": "redis://bob:pass1@h/0", "WORD": "plain", "API_KEY": "", "AUTH": "true"})) == {
        "abcdef",
        "bob",
        "pass1",
    }
    assert str(Path.home()) in home_folders()


def test_of_a_servers_status_figures_and_names_are_kept_and_sentences_are_read(words):
    given = {
        "uptime_seconds": 1.5,
        "models": [{"name": "my-model", "state": "failed", "reason": PROMPT, "aliases": ["lighthouse"], "size_bytes": 7}],
        "versions": {"python": "3.12.1"},
        PROMPT: 1,
        "engines": {"echo": "available", "mlx": "the package mlx_lm is not installed: hunter2"},
        "name": "lighthouse\nwharfinger",
    }
    told = json.dumps(report_parts.shape(given, words))
    assert not [secret for secret in SECRETS if secret in told]
    assert '"name": "my-model", "state": "failed", "reason": "' in told
    assert '"size_bytes": 7' in told
    assert '"echo": "available"' in told
    assert "3.12.1" in told


def test_failed_tests_are_named_where_there_are_such_tests(tmp_path):
    cache = tmp_path / ".pytest_cache/v/cache/lastfailed"
    assert report_parts.tests(tmp_path) == ["none kept"]
    cache.parent.mkdir(parents=True)
    (tmp_path / "tests").symlink_to(ROOT / "tests")
    name = "test_failed_tests_are_named_where_there_are_such_tests"
    cache.write_text(json.dumps({f"tests/scripts/test_report.py::{name}[hunter2]": True, "tests/x.py::test_lighthouse": True}))
    assert report_parts.tests(tmp_path) == ["2 failed when they were run last", f"tests/scripts/test_report.py::{name}"]


def test_a_log_that_may_not_be_read_or_is_not_there_is_said(tmp_path, words):
    assert report_parts.errors(tmp_path / "none", words) == ["no logs"]
    assert report_parts.errors(tmp_path, words) == ["none, or none that this user may read"]


def test_the_machine_and_the_versions_are_told():
    told = "\n".join([*report_machine.machine(), *report_machine.versions(ROOT)])
    for word in ("system", "processor", "Python", "flask", "gevent"):
        assert word in told


def test_the_command_writes_one_file_for_its_user_alone_and_never_over_another(tmp_path):
    environ = {**os.environ, "MODELS_DIR": "/home/alice/models", "LOG_DIR": str(tmp_path), "PORT": "1"}
    command = [ROOT / "scripts/report", "mine.txt"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environ, timeout=100)
    assert (done.returncode, done.stderr) == (0, "")
    path = tmp_path / "mine.txt"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert "MODELS_DIR=~/models" in path.read_text()
    path.write_text("another")
    assert report_file.main([str(path)]) == 1
    assert path.read_text() == "another"


@pytest.mark.slow
def test_a_running_server_is_asked_with_the_operators_token_which_stays_out(tmp_path):
    with Server(INFERENCE_ENGINE="echo", disposable=True) as server:
        environ = {**os.environ, "PORT": str(server.port), "INFERENCE_ENGINE": "echo", "LOG_DIR": str(tmp_path)}
        done = subprocess.run(
            [sys.executable, ROOT / "scripts/report_file.py", "-"], capture_output=True, text=True, env=environ, timeout=60
        )
        token = server.operator["Authorization"].split()[1]
    assert '"uptime_seconds": ' in done.stdout, done.stderr
    assert '"name": "echo"' in done.stdout
    assert token not in done.stdout
