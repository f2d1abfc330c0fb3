"""scripts/backup.sh: what is saved comes back, on another place too, and nothing that was there is lost."""

import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import httpx
import pytest

from src.keys import KeyFile
from src.settings import ROOT
from tests.support.server import Server

CHAT = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 4}


def install(folder: Path) -> Path:
    """The service without its models, as a clone of it has it."""
    for part in ("src", "scripts"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / ".venv").symlink_to(sys.prefix)
    (folder / "models").mkdir()
    return folder


def backup(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [folder / "scripts" / "backup.sh", *words], capture_output=True, text=True, timeout=60, cwd="/", env={"PATH": "/usr/bin:/bin"}
    )


@pytest.fixture
def place(tmp_path):
    """An installation with everything that is saved, and the key of its user."""
    folder = install(tmp_path / "one")
    secret = tmp_path / "redis"
    secret.write_text("redis://:secret@localhost/0")
    (folder / ".env").write_text(f"API_KEYS_FILE=secrets/keys.json\nRATE_LIMIT_STORAGE_FILE={secret}\nLOG_DIR=log files\n")
    (folder / "models" / "models.toml").write_text('[m]\nchat_template = "mine.jinja"\n')
    (folder / "models" / "mine.jinja").write_text("{{ messages }}")
    (folder / "secrets").mkdir()
    (folder / "log files").mkdir()
    (folder / "log files" / "app.log").write_text("a line\n")
    (folder / "log files" / "app.log.2026-01-01").write_text("an old line\n")
    for path in (secret, folder / ".env"):
        path.chmod(0o600)
    key, _ = KeyFile(folder / "secrets" / "keys.json").add("alice")
    return folder, key, secret


def saved(place: Path, archive: Path) -> None:
    done = backup(place, "save", str(archive))
    assert done.returncode == 0, done.stderr


def test_an_archive_is_for_its_owner_only_and_holds_no_model(place, tmp_path):
    folder, _, _ = place
    (folder / "models" / "m.gguf").write_bytes(b"x" * 1000)
    saved(folder, tmp_path / "b.tar.gz")
    assert (tmp_path / "b.tar.gz").stat().st_mode & 0o777 == 0o600
    with tarfile.open(tmp_path / "b.tar.gz") as archive:
        names = {name.removeprefix("./") for name in archive.getnames()}
    assert names == {
        ".", "env", "models.toml", "template mine.jinja", "api_keys_file", "rate_limit_storage_file",
        "logs", "logs/app.log", "logs/app.log.2026-01-01",
    }  # fmt: skip


@pytest.mark.slow
def test_all_of_it_comes_back_at_another_place_and_a_server_takes_the_old_key(place, tmp_path):
    folder, key, secret = place
    saved(folder, tmp_path / "b.tar.gz")
    shutil.rmtree(folder)
    secret.unlink()
    other = install(tmp_path / "two")
    done = backup(other, "restore", str(tmp_path / "b.tar.gz"))
    assert done.returncode == 0, done.stderr
    assert "API_KEYS_FILE=secrets/keys.json" in (other / ".env").read_text()
    assert (other / "models" / "mine.jinja").read_text() == "{{ messages }}"
    assert (other / "log files" / "app.log.2026-01-01").read_text() == "an old line\n"
    assert secret.read_text() == "redis://:secret@localhost/0"
    keys = other / "secrets" / "keys.json"
    assert {path.stat().st_mode & 0o777 for path in (keys, secret, other / ".env")} == {0o600}
    with Server(INFERENCE_ENGINE="echo", API_KEYS_FILE=keys) as server:
        answers = [httpx.post(server.url + "/v1/chat/completions", json=CHAT, headers={"x-api-key": sent}) for sent in (key, "wrong")]
        assert [answer.status_code for answer in answers] == [200, 401]


def test_what_is_there_and_differs_is_kept_beside_it(place, tmp_path):
    folder, _, _ = place
    saved(folder, tmp_path / "b.tar.gz")
    keys = folder / "secrets" / "keys.json"
    before = keys.read_text()
    KeyFile(keys).add("bob")
    after = keys.read_text()
    done = backup(folder, "restore", str(tmp_path / "b.tar.gz"))
    assert done.returncode == 0, done.stderr
    assert keys.read_text() == before
    (kept,) = keys.parent.glob("keys.json.before-*")
    assert kept.read_text() == after
    assert done.stdout.count("restored") == 1, "what is the same is left alone"


def test_wrong_words_files_and_settings_are_told(place, tmp_path):
    folder, _, _ = place
    (tmp_path / "no.tar.gz").write_text("no archive")
    for words in ([], ["save"], ["steal", "x"], ["restore", str(tmp_path / "no.tar.gz")], ["restore", str(tmp_path / "none")]):
        done = backup(folder, *words)
        assert done.returncode == 1
        assert "scripts/backup.sh: " in done.stderr
    (folder / ".env").chmod(0o644)
    assert backup(folder, "save", str(tmp_path / "b.tar.gz")).returncode == 0, "without a password in it, .env may be read"
    (folder / ".env").write_text("API_KEY=secret\n")
    done = backup(folder, "save", str(tmp_path / "c.tar.gz"))
    assert done.returncode == 1
    assert ".env holds secrets: others may use it (mode 0644)" in done.stderr
    assert not (tmp_path / "c.tar.gz").exists()
