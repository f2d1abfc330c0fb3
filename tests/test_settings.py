"""The settings' promises: who wins, what a wrong value says, and that .env.example tells the truth."""

import contextlib
from pathlib import Path

import pytest
from dotenv import dotenv_values

from src.errors import SettingsError
from src.settings import ROOT, Settings

EXAMPLE = ROOT / ".env.example"


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch):
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)


def write_env(folder: Path, *lines: str) -> Path:
    path = folder / ".env"
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def test_defaults_hold_without_environment_and_file():
    settings = Settings.load(env_file=None)
    assert (settings.host, settings.port, settings.inference_engine) == ("127.0.0.1", 8001, "auto")


def test_the_file_wins_over_defaults_and_the_environment_over_the_file(tmp_path, monkeypatch):
    env_file = write_env(tmp_path, "PORT=9001", "CACHE_SIZE=3")
    monkeypatch.setenv("PORT", "9002")
    settings = Settings.load(env_file)
    assert (settings.port, settings.cache_size) == (9002, 3)


def test_an_empty_value_counts_as_not_set(tmp_path, monkeypatch):
    monkeypatch.setenv("PORT", "")
    assert Settings.load(write_env(tmp_path, "WORKERS=")) == Settings.load(env_file=None)


def test_a_missing_file_is_no_error(tmp_path):
    assert Settings.load(tmp_path / "absent") == Settings.load(env_file=None)


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("PORT", "eighty", "integer"),
        ("PORT", "65536", "less than or equal to 65535"),
        ("WORKERS", "0", "greater than or equal to 1"),
        ("INFERENCE_ENGINE", "tensorflow", "'llama_cpp'"),
        ("DEVICE_TYPE", "tpu", "'cuda'"),
        ("LOG_LEVEL", "LOUD", "'WARNING'"),
        ("ENABLE_LOG_FILE", "perhaps", "boolean"),
        ("REQUEST_TIMEOUT", "0", "greater than 0"),
        ("MLX_MEMORY_FRACTION", "1.5", "less than or equal to 1"),
        ("RUN_DIR", "/x" * 50, "at most 80 characters"),
        ("TRUSTED_PROXIES", "127.0.0.1, nginx", "addresses, networks like 10.0.0.0/8"),
        ("CORS_ORIGINS", "app.example.org", "origins like https://app.example.org"),
        ("CORS_ORIGINS", "*, https://app.example.org", "or * alone"),
        ("CORS_ORIGINS", "https://app.example.org/path", "without a path"),
        ("LOG_FORMAT", "xml", "'json'"),
    ],
)
def test_a_wrong_value_is_one_line_with_key_value_and_expectation(monkeypatch, key, value, expected):
    monkeypatch.setenv(key, value)
    with pytest.raises(SettingsError) as raised:
        Settings.load(env_file=None)
    message = str(raised.value)
    assert message.startswith(f"{key}=")
    assert value.lower() in message.lower()
    assert expected in message
    assert Settings.model_fields[key.lower()].description in message
    assert "\n" not in message


def test_a_wrong_value_in_the_file_is_refused_too(tmp_path):
    with pytest.raises(SettingsError, match="PORT='x'"):
        Settings.load(write_env(tmp_path, "PORT=x"))


def test_choices_are_read_in_any_case(monkeypatch):
    monkeypatch.setenv("INFERENCE_ENGINE", "Echo")
    monkeypatch.setenv("LOG_LEVEL", "debug")
    settings = Settings.load(env_file=None)
    assert (settings.inference_engine, settings.log_level) == ("echo", "DEBUG")


def test_a_child_process_given_the_settings_reads_the_same_ones(monkeypatch):
    settings = Settings(port=9003, log_dir="/elsewhere", enable_caching=False, request_timeout=1.5)
    for key, value in settings.as_environ().items():
        monkeypatch.setenv(key, value)
    assert Settings.load(env_file=None) == settings


def test_relative_folders_lie_in_the_project_and_absolute_ones_where_they_say():
    assert Settings(models_dir="m").models_path == ROOT / "m"
    assert Settings(log_dir="/var/log/x").log_path == Path("/var/log/x")


# Secrets


def test_a_file_with_secrets_has_to_be_its_owners_alone(tmp_path):
    env_file = write_env(tmp_path, "API_KEY=secret")
    env_file.chmod(0o640)
    with pytest.raises(SettingsError, match=r"\.env holds secrets: others may use it \(mode 0640\)\. Run: chmod 600"):
        Settings.load(env_file)
    env_file.chmod(0o600)
    assert Settings.load(env_file).read_api_key() == "secret"


@pytest.mark.parametrize(
    ("line", "is_secret"), [("RATE_LIMIT_STORAGE=redis://h:1/0", False), ("RATE_LIMIT_STORAGE=redis://:p@h:1/0", True), ("API_KEY=", False)]
)
def test_only_what_is_secret_makes_a_file_so(tmp_path, line, is_secret):
    env_file = write_env(tmp_path, line)
    env_file.chmod(0o644)
    with pytest.raises(SettingsError, match="holds secrets") if is_secret else contextlib.nullcontext():
        Settings.load(env_file)


def test_a_wrong_secret_is_told_without_what_it_is(monkeypatch):
    monkeypatch.setenv("RATE_LIMIT_STORAGE", "redis//:hunter2@host")
    with pytest.raises(SettingsError) as raised:
        Settings.load(env_file=None)
    assert str(raised.value).startswith("RATE_LIMIT_STORAGE is wrong: expected memory, redis://")
    assert "hunter2" not in str(raised.value)
    assert "hunter2" not in repr(Settings(api_key="hunter2"))


def test_a_secret_comes_from_one_place(tmp_path, monkeypatch):
    monkeypatch.setenv("API_KEY", "a")
    monkeypatch.setenv("API_KEY_FILE", "b")
    with pytest.raises(SettingsError, match="API_KEY and API_KEY_FILE are both set"):
        Settings.load(env_file=None)


def test_a_secrets_file_may_be_a_groups_but_not_everybodys(tmp_path):
    path = tmp_path / "redis"
    path.write_text("redis://:p@host:1/0\n")
    path.chmod(0o440)  # as systemd and Docker hand it over
    assert Settings(rate_limit_storage_file=str(path)).read_rate_limit_storage() == "redis://:p@host:1/0"
    path.chmod(0o444)
    with pytest.raises(SettingsError, match="RATE_LIMIT_STORAGE_FILE="):
        Settings(rate_limit_storage_file=str(path)).read_rate_limit_storage()


def test_an_empty_secrets_file_is_no_secret(tmp_path):
    path = tmp_path / "key"
    path.touch(0o600)
    with pytest.raises(SettingsError, match="expected a file that is not empty"):
        Settings(api_key_file=str(path)).read_api_key()


def test_a_process_that_needs_no_secrets_gets_none(monkeypatch):
    settings = Settings(api_key="secret", rate_limit_storage="redis://:secret@h:1/0")
    assert "secret" not in " ".join(settings.as_environ().values())
    for key, value in settings.as_environ(secrets=True).items():
        monkeypatch.setenv(key, value)
    assert Settings.load(env_file=None) == settings


def test_https_needs_both_its_files(monkeypatch):
    monkeypatch.setenv("TLS_KEYFILE", "key.pem")
    with pytest.raises(SettingsError, match="TLS_KEYFILE is set and TLS_CERTFILE is not"):
        Settings.load(env_file=None)


def test_no_prefix_is_kept_where_caching_is_off():
    assert Settings(enable_caching=False, cache_size=5).cached_prefixes == 0


def test_the_example_lists_every_setting_in_order_with_its_description_above():
    lines = EXAMPLE.read_text().splitlines()
    found = [(line.lstrip("#").split("=")[0], lines[number - 1]) for number, line in enumerate(lines) if "=" in line.split(" ")[0]]
    assert found == [(name.upper(), f"# {field.description}") for name, field in Settings.model_fields.items()]


def test_copying_the_example_to_env_changes_nothing(tmp_path):
    env_file = tmp_path / ".env"
    env_file.write_text(EXAMPLE.read_text())
    assert Settings.load(env_file) == Settings.load(env_file=None)


def test_the_example_gives_every_default(tmp_path):
    env_file = tmp_path / ".env"
    uncommented = [line[1:] for line in EXAMPLE.read_text().splitlines() if line.startswith("#") and line[1:2].isalpha()]
    env_file.write_text("\n".join(uncommented))
    values = dotenv_values(env_file)
    assert list(values) == [name.upper() for name in Settings.model_fields]
    for name, field in Settings.model_fields.items():
        # Compared as the settings read it: "true" is True, "8388608" is 8 * 2**20; an empty value leaves the default.
        value = values[name.upper()]
        assert getattr(Settings.model_validate({name: value} if value else {}), name) == field.default, name
        assert value or field.default == "", f"{name.upper()} gives no default"


def test_a_models_folder_below_the_home_folder_may_be_written_as_in_a_shell(monkeypatch):
    monkeypatch.setenv("HOME", "/home/jane")
    assert Settings.load(None, {"MODELS_DIR": "~/.lmstudio/models"}).models_path == Path("/home/jane/.lmstudio/models")
    assert Settings.load(None, {"MODELS_DIR": "models"}).models_path == ROOT / "models"
