"""Whose key was presented: by every entry of the file, as it is now, and never by one that is void."""

import time

import pytest
from loguru import logger

from src.api.access import keyring
from src.api.access.keyring import Keyring
from src.errors import SettingsError
from src.keys import Key, KeyFile
from src.settings import Settings


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.setattr(keyring, "LOOK_SECONDS", 0.0)
    return KeyFile(tmp_path / "keys.json")


@pytest.fixture
def told():
    lines: list[str] = []
    sink = logger.add(lambda line: lines.append(str(line)), format="{message}")
    yield lines
    logger.remove(sink)


def ring(file: KeyFile, **settings: object) -> Keyring:
    return Keyring(Settings(api_keys_file=str(file.path), **settings))


def name(key: Key | None) -> str | None:
    return key.name if key else None


def test_the_key_of_a_setting_owns_the_same_answers_in_every_worker():
    first, second = (Keyring(Settings(api_key="s3cret")).find("s3cret") for _ in range(2))
    assert first is not None
    assert second is not None
    assert first.owner == second.owner
    assert first.salt != second.salt


def test_without_settings_there_are_no_keys():
    assert not Keyring(Settings()).configured


def test_each_key_is_found_and_nothing_else_is(file):
    secrets = {name: file.add(name)[0] for name in ("a", "b", "c")}
    found = ring(file)
    assert {name(found.find(secret)) for secret in secrets.values()} == {"a", "b", "c"}
    for wrong in ("", " ", "sk-", secrets["a"][:-1], secrets["a"] + "x", secrets["a"].upper(), "x" * 8000, "' OR 1=1--", "\udcff", "ключ"):
        assert found.find(wrong) is None


def test_a_wrong_key_is_compared_with_every_entry_and_so_is_a_right_one(file, monkeypatch):
    secrets = [file.add(name)[0] for name in ("a", "b", "c")]
    found = ring(file)
    compared: list[str] = []
    fits = Key.fits
    monkeypatch.setattr(Key, "fits", lambda key, presented: compared.append(key.name) or fits(key, presented))
    for presented in (secrets[0], secrets[2], "wrong"):
        compared.clear()
        found.find(presented)
        assert compared == ["a", "b", "c"]


def test_a_right_key_is_hashed_once_and_a_wrong_one_fills_no_memory(file):
    secret, _ = file.add("a")
    found = ring(file)
    for number in range(1000):
        found.find(f"wrong {number}")
        found.find(secret)
    assert len(found._known) == 1


def test_changes_of_the_file_are_followed(file):
    old, _ = file.add("a")
    found = ring(file)
    assert name(found.find(old)) == "a"
    new, _ = file.rotate("a")
    assert (found.find(old), name(found.find(new))) == (None, "a")
    other, _ = file.add("b")
    assert name(found.find(other)) == "b"
    file.revoke("a")
    assert found.find(new) is None
    file.revoke("b")
    assert found.find(other) is None
    assert found.configured, "a file without keys lets nobody in"


def test_a_file_that_became_wrong_is_told_once_and_changes_nothing(file, told):
    secret, _ = file.add("a")
    found = ring(file)
    file.path.chmod(0o644)
    for _ in range(3):
        assert name(found.find(secret)) == "a"
    assert sum("The keys stay as they were" in line and "chmod 600" in line for line in told) == 1
    file.path.unlink()
    assert name(found.find(secret)) == "a"
    assert found.find("anything") is None


def test_an_expired_key_is_not_found_also_if_it_was_before(file, monkeypatch):
    secret, _ = file.add("a", expires=int(time.time()) + 1000)
    found = ring(file)
    assert name(found.find(secret)) == "a"
    monkeypatch.setattr(time, "time", lambda now=time.time: now() + 1001)
    assert found.find(secret) is None


def test_one_key_comes_from_the_setting_or_its_file_and_may_everything(tmp_path):
    path = tmp_path / "key"
    path.write_text("of the file\n")
    path.chmod(0o600)
    for settings, secret in ((Settings(api_key="of the setting"), "of the setting"), (Settings(api_key_file=str(path)), "of the file")):
        found = Keyring(settings)
        assert found.configured
        key = found.find(secret)
        assert key
        assert (key.name, key.may("admin")) == ("API_KEY", True)
        assert found.find("other") is None


def test_the_file_is_looked_at_once_a_second_only(file, monkeypatch):
    monkeypatch.setattr(keyring, "LOOK_SECONDS", 1000.0)
    secret, _ = file.add("a")
    found = ring(file)
    file.revoke("a")
    assert name(found.find(secret)) == "a"
    found.look_again()
    assert found.find(secret) is None


def test_a_start_with_a_wrong_file_is_refused(file):
    with pytest.raises(SettingsError):
        ring(file)
