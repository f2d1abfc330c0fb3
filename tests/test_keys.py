"""The file of keys: what it holds and what not, who may read it, and what two who change it at once leave."""

import json
import os
import subprocess
import sys
import time

import pytest

from src.errors import InvalidValue, NotFound, SettingsError
from src.keys import SCOPES, KeyFile, of_secret
from src.settings import ROOT


@pytest.fixture
def file(tmp_path):
    return KeyFile(tmp_path / "keys.json")


def test_a_key_is_256_random_bits_and_stands_nowhere_in_the_file(file):
    secrets = [file.add(f"k{number}")[0] for number in range(20)]
    text = file.path.read_text()
    assert all(len(secret) == len("sk-") + 43 and secret not in text and secret[3:] not in text for secret in secrets)
    assert len(set(secrets)) == 20
    entries = json.loads(text)["keys"]
    assert len({entry["salt"] for entry in entries}) == len({entry["hash"] for entry in entries}) == 20


def test_the_same_secret_has_another_hash_in_another_entry():
    one, other = of_secret("same", name="a"), of_secret("same", name="b")
    assert one.hash != other.hash
    assert one.fits(b"same")
    assert other.fits(b"same")
    assert not one.fits(b"other")


def test_only_the_owner_may_read_the_file_from_its_first_moment(file):
    file.add("a")
    assert file.path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o660, 0o644, 0o666])
def test_a_file_that_others_may_use_is_refused_with_the_remedy(file, mode):
    file.add("a")
    file.path.chmod(mode)
    with pytest.raises(SettingsError, match=rf"others may use it \(mode {mode:04o}\). Run: chmod 600"):
        file.read()
    with pytest.raises(SettingsError):
        file.add("b")


def test_a_file_that_is_not_there_is_told_with_how_to_make_one(file):
    with pytest.raises(SettingsError, match=r"scripts/manage_keys.py add NAME"):
        file.read()


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"keys": [{"name": "a"}]}', '{"keys": [{"name": "a", "salt": "zz", "hash": "00"}]}', '{"keys": [], "more": 1}'],
)
def test_a_file_of_something_else_is_told_in_one_line(file, text):
    file.path.touch(0o600)
    file.path.write_text(text)
    with pytest.raises(SettingsError, match="API_KEYS_FILE=") as raised:
        file.read()
    assert "\n" not in str(raised.value)


def test_two_keys_of_one_name_are_refused(file):
    file.add("a")
    with pytest.raises(InvalidValue, match="There is a key a already"):
        file.add("a")
    entry = json.loads(file.path.read_text())["keys"][0]
    file.path.write_text(json.dumps({"keys": [entry, entry]}))
    with pytest.raises(SettingsError, match="the same name"):
        file.read()


@pytest.mark.parametrize("name", ["", "-a", "a b", "a\nb", "a=b", "../x", "é", "a" * 65, "a\n"])
def test_a_name_that_could_forge_a_log_line_is_refused(file, name):
    with pytest.raises(InvalidValue, match="name is wrong: expected up to 64 letters"):
        file.add(name)
    assert not file.path.exists() or file.read() == []


@pytest.mark.parametrize(
    ("what", "field"),
    [
        ({"scopes": ["root"]}, "scopes"),
        ({"scopes": []}, "scopes"),
        ({"requests_per_minute": -1}, "requests_per_minute"),
        ({"tokens_per_minute": 2**40}, "tokens_per_minute"),
        ({"models": ["m"], "scopes": ["admin"]}, "models"),
    ],
)
def test_what_is_wrong_with_a_key_is_told_by_field(file, what, field):
    with pytest.raises(InvalidValue) as raised:
        file.add("a", **what)
    assert raised.value.param == field


def test_admin_may_everything_and_others_only_what_they_are_for():
    rights = {
        scope: [of_secret("x", name="a", scopes=[scope]).may(other) for other in ("inference", "monitor", "admin")] for scope in SCOPES
    }
    assert rights == {"inference": [True, False, False], "monitor": [False, True, False], "admin": [True, True, True]}


@pytest.mark.parametrize("name", ["API_KEY", "api_key"])
def test_the_name_of_the_key_that_a_setting_gives_is_no_name_of_the_files(file, name):
    with pytest.raises(InvalidValue, match="API_KEY stands for the key of the setting API_KEY"):
        file.add(name)


@pytest.mark.parametrize("field", ["name", "salt", "hash", "id"])
def test_a_line_break_at_the_end_of_what_the_file_holds_is_refused(file, field):
    file.add("a")
    (entry,) = json.loads(file.path.read_text())["keys"]
    file.path.write_text(json.dumps({"keys": [{**entry, field: entry[field] + "\n"}]}))
    with pytest.raises(SettingsError, match=rf"\.{field}"):
        file.read()


def test_answers_belong_to_the_key_whatever_its_secret_and_to_no_other_of_its_name(file):
    first = file.add("a")[1].owner
    assert file.rotate("a")[1].owner == first
    file.revoke("a")
    assert file.add("a")[1].owner != first
    assert "owner" not in file.read()[0].described()
    assert file.read()[0].id not in str(file.read()[0].described())


def test_a_key_of_an_older_file_keeps_its_answers_when_it_is_rotated(file):
    file.add("a")
    entries = json.loads(file.path.read_text())["keys"]
    file.path.write_text(json.dumps({"keys": [{name: value for name, value in entry.items() if name != "id"} for entry in entries]}))
    (before,) = file.read()
    assert file.rotate("a")[1].owner == before.owner


def test_a_rotated_key_keeps_all_but_its_secret(file):
    old, before = file.add("a", scopes=["monitor"], models=["m"], expires=int(time.time()) + 99, requests_per_minute=5)
    new, after = file.rotate("a")
    assert after.fits(new.encode())
    assert not after.fits(old.encode())
    assert {**before.described(), "created": 0} == {**after.described(), "created": 0}
    assert file.read() == [after]


def test_a_revoked_key_is_gone_and_an_unknown_one_is_told(file):
    file.add("a")
    file.add("b")
    file.revoke("a")
    assert [key.name for key in file.read()] == ["b"]
    for act in (file.revoke, file.rotate):
        with pytest.raises(NotFound, match=r"There is no key 'a'\. Keys here: b"):
            act("a")


def test_a_key_is_void_from_the_second_it_expires():
    key = of_secret("x", name="a", expires=1000)
    assert (key.expired(999.9), key.expired(1000.0)) == (False, True)


WRITER = """
import sys
from pathlib import Path
from src.keys import KeyFile

for number in range(20):
    KeyFile(Path(sys.argv[1])).add(sys.argv[2] + str(number))
"""


def test_processes_that_add_at_once_lose_no_key(file):
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(file.path), name], cwd=ROOT) for name in "abc"]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    assert len(file.read()) == 60


def test_a_change_that_is_killed_leaves_the_file_as_it_was(file, monkeypatch):
    file.add("a")
    before = file.path.read_bytes()

    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(KeyboardInterrupt):
        file.add("b")
    assert file.path.read_bytes() == before
    assert sorted(path.name for path in file.path.parent.iterdir()) == [".keys.json.lock", "keys.json"]
