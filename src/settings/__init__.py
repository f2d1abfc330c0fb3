"""Settings, read once from the environment and .env. The only reader of either; knows nothing of what they are used for.

Gunicorn's master imports this before its workers are patched by gevent, so it must not import ssl, asyncio or what
imports them (pydantic-settings does): pydantic and python-dotenv alone do not.
"""

import os
import re
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from dotenv import dotenv_values
from pydantic import Field, ValidationError, field_validator

from src import ROOT, secret_files
from src.errors import SettingsError
from src.settings.limits import Limits
from src.settings.models import Models
from src.settings.server import Server

__all__ = ["ROOT", "Limits", "Settings"]

SECRETS = ("api_key", "rate_limit_storage")  # each of which may stand in a file of its own
_STORAGE = re.compile(r"memory|(redis|rediss|redis\+unix)://\S+")


class Settings(Limits, Models, Server):
    """Every setting with its default: those of the server first, then those of models, the limits, and these."""

    # Answers that are kept
    resume_seconds: float = Field(
        30, ge=0, le=3600, description="seconds that an answer with an Idempotency-Key continues without a client"
    )
    idempotency_seconds: float = Field(600, ge=0, le=86_400, description="seconds that an answer is kept for its Idempotency-Key")
    idempotency_max_answers: int = Field(
        1000, ge=0, description="finished answers kept for their Idempotency-Key; the oldest of the API key with most are dropped first"
    )
    idempotency_max_bytes: int = Field(
        64 * 2**20,
        ge=2**20,
        description="bytes of answers kept, in all, with their requests and those that still run (half of them for one API key)",
    )
    response_store_size: int = Field(
        256,
        ge=0,
        description="responses stored for previous_response_id until the server stops; the oldest of the API key with most are dropped "
        "first; 0 = none",
    )
    response_store_seconds: int = Field(86_400, ge=1, description="seconds that a response is stored")
    response_store_max_bytes: int = Field(64 * 2**20, ge=1, description="bytes of responses stored, in all")

    # Rate limits
    rate_limit_requests: int = Field(0, ge=0, description="requests per minute and key; 0 = unlimited")
    rate_limit_tokens: int = Field(0, ge=0, description="tokens per minute and key, prompts and completions together; 0 = unlimited")
    rate_limit_concurrent: int = Field(0, ge=0, description="sequences (n × prompts) of a key at a time; 0 = unlimited")
    rate_limit_address_requests: int = Field(0, ge=0, description="requests per minute and client address; 0 = unlimited")
    rate_limit_address_tokens: int = Field(0, ge=0, description="tokens per minute and client address; 0 = unlimited")
    rate_limit_address_concurrent: int = Field(0, ge=0, description="sequences of a client address at a time; 0 = unlimited")
    rate_limit_storage: str = Field(
        "memory", repr=False, description="where rate limits are counted: memory (each worker by itself), or redis://HOST:PORT/DB (shared)"
    )
    rate_limit_storage_file: str = Field("", description="file that holds the RATE_LIMIT_STORAGE")
    rate_limit_fail_open: bool = Field(True, description="accept requests while Redis is unreachable; otherwise they get a 503")

    # Metrics
    metrics: bool = Field(True, description="offer metrics for Prometheus")
    metrics_address: str = Field(
        "",
        pattern=r"^(|[^\s:]+:\d{1,5}|\[[0-9A-Fa-f:.]+\]:\d{1,5})$",
        description="separate host:port for the metrics, which requires no key; empty = GET /metrics",
    )
    otel_exporter_otlp_endpoint: str = Field(
        "", pattern=r"^(|https?://\S+)$", description="endpoint for traces, OTLP over HTTP (http://127.0.0.1:4318); empty = no traces"
    )

    # Logs
    log_level: Literal["TRACE", "DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="TRACE, DEBUG, INFO, WARNING or ERROR")
    log_format: Literal["text", "json"] = Field("text", description="text, or json (one object per line)")
    log_dir: str = Field("logs", min_length=1, description="folder for the log files")
    enable_log_file: bool = Field(True, description="write log files in addition to the terminal")
    log_retention_days: int = Field(30, ge=1, description="days that a log file is kept")
    log_max_bytes: int = Field(2**30, ge=0, description="bytes of each log with its older files; 0 = unlimited")
    temp_retention_days: int = Field(7, ge=1, description="days that an unfinished download is kept")

    @field_validator("rate_limit_storage")
    @classmethod
    def _is_storage(cls, value: str) -> str:
        if not _STORAGE.fullmatch(value):
            raise ValueError("memory, redis://HOST:PORT/DB, rediss://HOST:PORT/DB or redis+unix:///PATH")
        return value

    @field_validator("otel_exporter_otlp_endpoint")
    @classmethod
    def _sdk_is_there(cls, endpoint: str) -> str:
        if endpoint and not _is_installed("opentelemetry.sdk", "opentelemetry.exporter.otlp"):
            raise ValueError("the OpenTelemetry SDK to be installed: ./scripts/install requirements.txt requirements-tracing.txt")
        return endpoint

    @property
    def log_path(self) -> Path:
        return ROOT / self.log_dir

    @property
    def responses_path(self) -> Path:
        """Where workers store responses, and the manager clears away the old ones."""
        return Path(self.run_dir, "responses")

    @property
    def metrics_listen(self) -> tuple[str, int] | None:
        """The address of their own that the metrics have."""
        host, _, port = self.metrics_address.rpartition(":")
        return (host.strip("[]"), int(port)) if self.metrics and host else None

    def read_api_key(self) -> str:
        """API_KEY, or what API_KEY_FILE holds. Raises SettingsError."""
        return self._secret("api_key") or self.api_key

    def read_rate_limit_storage(self) -> str:
        """RATE_LIMIT_STORAGE, or what RATE_LIMIT_STORAGE_FILE holds. Raises SettingsError."""
        found = self._secret("rate_limit_storage") or self.rate_limit_storage
        if not _STORAGE.fullmatch(found):
            raise SettingsError("RATE_LIMIT_STORAGE_FILE is wrong: expected it to hold an address like redis://:PASSWORD@HOST:PORT/DB")
        return found

    @classmethod
    def load(cls, env_file: Path | None = ROOT / ".env", environ: Mapping[str, str] = os.environ) -> "Settings":
        """Read the environment over `env_file` over the defaults. An empty value counts as not set.

        Raises SettingsError with one line: key, value, what was expected.
        """
        in_file = dotenv_values(env_file) if env_file else {}
        if env_file and any(_is_secret(name, in_file.get(name.upper())) for name in SECRETS):
            secret_files.check_mode(env_file, f"{env_file.name} holds secrets")
        found = {**in_file, **environ}
        values = {name: found[name.upper()] for name in cls.model_fields if found.get(name.upper())}
        for name in (
            "inference_engine",
            "device_type",
            "worker_class",
            "kv_cache_type",
            "log_format",
            "dtype",
            "distributed_executor_backend",
        ):
            if name in values:
                values[name] = str(values[name]).lower()
        if "log_level" in values:
            values["log_level"] = str(values["log_level"]).upper()
        try:
            settings = cls.model_validate(values)
        except ValidationError as error:
            first = error.errors()[0]
            key = str(first["loc"][0])
            expected = first["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
            description = cls.model_fields[key].description
            value = "" if key in SECRETS else f"={first['input']!r}"
            raise SettingsError(f"{key.upper()}{value} is wrong: expected {expected} ({description})") from error
        settings._check_together()
        return settings

    def as_environ(self, *, secrets: bool = False) -> dict[str, str]:
        """The settings as environment variables, so that a child process sees the same ones; without `secrets`, these are empty."""
        return {name.upper(): "" if name in SECRETS and not secrets else str(value) for name, value in self.model_dump().items()}

    def _check_together(self) -> None:
        """Raises SettingsError for values that are right alone and wrong together."""
        if bool(self.tls_certfile) != bool(self.tls_keyfile):
            here, other = ("TLS_CERTFILE", "TLS_KEYFILE") if self.tls_certfile else ("TLS_KEYFILE", "TLS_CERTFILE")
            raise SettingsError(f"{here} is set and {other} is not: https needs both")
        for name in SECRETS:
            if getattr(self, f"{name}_file") and getattr(self, name) != type(self).model_fields[name].default:
                raise SettingsError(f"{name.upper()} and {name.upper()}_FILE are both set: leave one of them out")

    def _secret(self, name: str) -> str:
        """What the file of a *_FILE setting holds; empty where it is not set."""
        path = getattr(self, f"{name}_file")
        if not path:
            return ""
        if not (text := secret_files.read(ROOT / path, f"{name.upper()}_FILE").strip()):
            raise SettingsError(f"{name.upper()}_FILE={path!r} is wrong: expected a file that is not empty")
        return text


def _is_secret(name: str, value: str | None) -> bool:
    """An address is a secret only with a password in it."""
    return bool(value) and (name != "rate_limit_storage" or "@" in str(value))


def _is_installed(*modules: str) -> bool:
    try:
        return all(find_spec(module) for module in modules)
    except ModuleNotFoundError:  # not even the package around it
        return False
