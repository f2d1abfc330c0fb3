"""Settings, read once from the environment and .env. The only reader of either; knows nothing of what they are used for.

Gunicorn's master imports this before its workers are patched by gevent, so it must not import ssl, asyncio or what
imports them (pydantic-settings does): pydantic and python-dotenv alone do not.
"""

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from dotenv import dotenv_values
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from src.errors import SettingsError

ROOT = Path(__file__).resolve().parent.parent


class Settings(BaseModel):
    """Every setting with its default. The environment's name of a field is the field's name in capitals."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # The server
    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(8001, ge=1, le=65535, description="TCP port to listen on")
    debug: bool = Field(False, description="development: reload gateway code when it changes (the model stays loaded)")
    workers: int = Field(1, ge=1, le=64, description="HTTP worker processes; they all share the one loaded model")
    worker_class: Literal["gevent"] = Field("gevent", description="Gunicorn's worker class")
    worker_connections: int = Field(1000, ge=1, description="connections one worker holds at a time")
    max_requests: int = Field(0, ge=0, description="requests after which a worker is replaced; 0: never")
    max_requests_jitter: int = Field(0, ge=0, description="up to so many requests more, drawn per worker")
    shutdown_grace_seconds: float = Field(30, ge=0, le=3600, description="time running requests get to end when the server stops")
    run_dir: str = Field("", max_length=80, description="private folder for the processes' sockets; empty: a new one under the temp folder")

    # Models
    inference_engine: Literal["auto", "mlx", "vllm", "llama_cpp", "echo"] = Field(
        "auto", description="auto, mlx, vllm, llama_cpp, or echo (no model: replays the prompt, for tests)"
    )
    device_type: Literal["auto", "mps", "cuda", "cpu"] = Field("auto", description="auto, mps, cuda or cpu")
    models_dir: str = Field("models", min_length=1, description="folder the models lie in")
    default_model: str = Field("", description="model loaded at the start and used where a request names none; empty: the first")
    max_concurrent_models: int = Field(1, ge=1, le=64, description="models loaded at a time")
    engine_fallback: bool = Field(False, description="where the chosen engine fails to load a model, load it with another that can")
    memory_reserve: int = Field(512, ge=0, description="MiB that are left free when a model is loaded")
    model_idle_seconds: float = Field(0, ge=0, description="unload a model that was not asked for so long; 0: never")
    runner_max_age: float = Field(0, ge=0, description="seconds after which a model's process is replaced by a fresh one; 0: never")
    runner_max_rss_growth: int = Field(
        0, ge=0, description="MiB that a model's process may grow by before it is replaced by a fresh one; 0: any"
    )
    load_on_demand: bool = Field(True, description="load a model when a request names it")
    load_wait_seconds: float = Field(600, ge=0, description="time a request waits for its model to load before it gets a 503")
    context_length: int = Field(0, ge=0, description="tokens of one sequence, prompt and completion; 0: the model's own, at most 4096")
    max_parallel_sequences: int = Field(0, ge=0, le=256, description="sequences computed together; 0: as many as fit, at most 20")
    kv_cache_type: Literal["auto", "f16", "q8_0"] = Field(
        "auto", description="how the KV cache is stored: auto (f16, but on x86 CPUs its values as q8_0), f16, or q8_0 (half the memory)"
    )
    step_time_target_ms: float = Field(
        0, ge=0, le=60_000, description="milliseconds a step with a prompt in it may keep running streams waiting; 0: by the device"
    )
    threads: int = Field(0, ge=0, le=1024, description="CPU threads of the engine; 0: one per physical core")
    enable_caching: bool = Field(True, description="reuse the computed prefix of an earlier prompt")
    cache_size: int = Field(16, ge=0, description="finished sequences kept for such reuse")
    mlx_memory_fraction: float = Field(
        0.8,
        gt=0,
        le=1,
        description="share of the memory that MLX may use: on Metal of the recommended working set, on a CPU of what is free",
    )
    echo_step_ms: float = Field(0, ge=0, le=10_000, description="milliseconds one step of the echo engine takes")

    # Requests
    request_timeout: float = Field(600, gt=0, description="seconds a request may take in all")
    max_concurrent_requests: int = Field(256, ge=1, description="requests running and waiting on one model; more get a 429")
    max_body_bytes: int = Field(8 * 2**20, ge=1024, description="size of a request's body")
    body_timeout: float = Field(30, gt=0, description="seconds a request's body may take to arrive")

    # Metrics
    metrics: bool = Field(True, description="offer figures for Prometheus")
    metrics_address: str = Field(
        "",
        pattern=r"^(|[^\s:]+:\d{1,5}|\[[0-9A-Fa-f:.]+\]:\d{1,5})$",
        description="host:port that offers them, and asks for no key; empty: GET /metrics",
    )
    otel_exporter_otlp_endpoint: str = Field(
        "", pattern=r"^(|https?://\S+)$", description="where traces go, by OTLP over HTTP (http://127.0.0.1:4318); empty: nowhere"
    )

    # Logs
    log_level: Literal["TRACE", "DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="TRACE, DEBUG, INFO, WARNING or ERROR")
    log_dir: str = Field("logs", min_length=1, description="folder the logs are written to")
    enable_log_file: bool = Field(True, description="write log files, not only to the terminal")
    log_retention_days: int = Field(30, ge=1, description="days a log file is kept")

    @property
    def models_path(self) -> Path:
        return ROOT / self.models_dir

    @property
    def log_path(self) -> Path:
        return ROOT / self.log_dir

    @field_validator("otel_exporter_otlp_endpoint")
    @classmethod
    def _sdk_is_there(cls, endpoint: str) -> str:
        if endpoint and not _is_installed("opentelemetry.sdk", "opentelemetry.exporter.otlp"):
            raise ValueError("the OpenTelemetry SDK to be installed: ./scripts/install requirements.txt requirements-tracing.txt")
        return endpoint

    @property
    def metrics_listen(self) -> tuple[str, int] | None:
        """The address of their own that the metrics have."""
        host, _, port = self.metrics_address.rpartition(":")
        return (host.strip("[]"), int(port)) if self.metrics and host else None

    @property
    def cached_prefixes(self) -> int:
        return self.cache_size if self.enable_caching else 0

    @classmethod
    def load(cls, env_file: Path | None = ROOT / ".env") -> "Settings":
        """Read the environment over `env_file` over the defaults. An empty value counts as not set.

        Raises SettingsError with one line: key, value, what was expected.
        """
        found = {**(dotenv_values(env_file) if env_file else {}), **os.environ}
        values = {name: found[name.upper()] for name in cls.model_fields if found.get(name.upper())}
        for name in ("inference_engine", "device_type", "worker_class", "kv_cache_type"):
            if name in values:
                values[name] = str(values[name]).lower()
        if "log_level" in values:
            values["log_level"] = str(values["log_level"]).upper()
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            first = error.errors()[0]
            key = str(first["loc"][0])
            expected = first["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
            description = cls.model_fields[key].description
            raise SettingsError(f"{key.upper()}={first['input']!r} is wrong: expected {expected} ({description})") from error

    def as_environ(self) -> dict[str, str]:
        """The settings as environment variables, so that a child process sees the same ones."""
        return {name.upper(): str(value) for name, value in self.model_dump().items()}


def _is_installed(*modules: str) -> bool:
    try:
        return all(find_spec(module) for module in modules)
    except ModuleNotFoundError:  # not even the package around it
        return False
