"""Settings, read once from the environment and .env. The only reader of either; knows nothing of what they are used for.

Gunicorn's master imports this before its workers are patched by gevent, so it must not import ssl, asyncio or what
imports them (pydantic-settings does): pydantic and python-dotenv alone do not.
"""

import ipaddress
import os
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from dotenv import dotenv_values
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from src import private
from src.errors import SettingsError

ROOT = Path(__file__).resolve().parent.parent
SECRETS = ("api_key", "rate_limit_storage")  # each of which may stand in a file of its own
_ORIGIN = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^/\s*]+")
_STORAGE = re.compile(r"memory|(redis|rediss|redis\+unix)://\S+")


# Settings that vLLM has by the same names.
VLLM = (
    *("dtype", "quantization", "kv_cache_dtype", "gpu_memory_utilization", "enforce_eager"),
    *("tensor_parallel_size", "pipeline_parallel_size", "distributed_executor_backend"),
)


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

    # Access
    api_keys_file: str = Field("", description="file of API keys that scripts/manage_keys.py makes; only its owner may read it")
    api_key: str = Field("", repr=False, description="one API key that may do everything")
    api_key_file: str = Field("", description="file that holds the API_KEY, instead of it")
    allow_unauthenticated: bool = Field(False, description="without keys, serve on addresses that are not loopback too")
    metrics_require_key: bool = Field(True, description="where there are keys, GET /metrics needs one")
    allowed_hosts: str = Field("", description="names this server may be asked by beside localhost, with commas between; *: any")
    cors_origins: str = Field("", description="origins whose web pages may use this server, with commas between; *: any")
    trusted_proxies: str = Field("", description="addresses and networks of proxies whose X-Forwarded-For is believed; unix: a socket's")
    tls_certfile: str = Field("", description="certificate (PEM, with its chain) to serve https with")
    tls_keyfile: str = Field("", description="its private key (PEM)")

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
    dtype: Literal["auto", "float16", "bfloat16", "float32"] = Field("auto", description="vLLM: type of the weights in memory")
    quantization: str = Field("", description="vLLM: how the weights are quantised; empty: as the model's files say")
    kv_cache_dtype: str = Field("auto", min_length=1, description="vLLM: type of the KV cache, as fp8")
    gpu_memory_utilization: float = Field(0.92, gt=0, le=1, description="vLLM: share of each GPU's memory that it takes")
    tensor_parallel_size: int = Field(1, ge=1, le=1024, description="vLLM: GPUs (on CPUs: processes) that share each layer")
    pipeline_parallel_size: int = Field(1, ge=1, le=1024, description="vLLM: groups of these that share the layers out among them")
    distributed_executor_backend: Literal["auto", "mp", "ray"] = Field(
        "auto", description="vLLM: what runs these: mp on this machine, ray on several; auto: vLLM's choice"
    )
    enforce_eager: bool = Field(False, description="vLLM: compile nothing: loads faster, computes slower")
    echo_step_ms: float = Field(0, ge=0, le=10_000, description="milliseconds one step of the echo engine takes")
    echo_fault: str = Field(
        "",
        pattern=r"^((crash|kill|stall) .+)?$",
        description="crash, kill or stall, and a text: what the echo engine does on it; for tests",
    )

    engine_stall_seconds: float = Field(
        120, ge=0, description="seconds one step of an engine may take before its process is taken for hung and replaced; 0: any"
    )

    # Requests
    request_timeout: float = Field(600, gt=0, description="seconds a request may take in all")
    max_concurrent_requests: int = Field(256, ge=1, description="requests running and waiting on one model; more get a 429")
    resume_seconds: float = Field(
        30, ge=0, le=3600, description="seconds an answer goes on without a client, if its request has an Idempotency-Key"
    )
    idempotency_seconds: float = Field(600, ge=0, le=86_400, description="seconds an answer is kept for its Idempotency-Key")
    idempotency_max_answers: int = Field(1000, ge=0, description="ended answers kept for their Idempotency-Key; the oldest go first")
    idempotency_max_bytes: int = Field(64 * 2**20, ge=0, description="size of the ended answers kept, in all")
    max_body_bytes: int = Field(8 * 2**20, ge=1024, description="size of a request's body")
    body_timeout: float = Field(30, gt=0, description="seconds a request's body may take to arrive")
    response_store_size: int = Field(
        0, ge=0, description="responses kept for previous_response_id, till the server stops; the oldest go first; 0: none"
    )
    strict_fields: bool = Field(False, description="refuse fields that a route does not know, rather than name them in X-Ignored-Fields")
    max_grammar_bytes: int = Field(64 * 1024, ge=1, description="size of a request's JSON schema, regular expression, choices or grammar")
    max_grammar_depth: int = Field(32, ge=1, le=100, description="objects and lists in each other in a request's JSON schema")
    grammar_compile_seconds: float = Field(5, gt=0, le=60, description="seconds it may take to compile one")
    template_seconds: float = Field(2, gt=0, le=60, description="seconds of processor time a model's chat template may take on a request")

    # Rate limits
    rate_limit_requests: int = Field(0, ge=0, description="requests for text that a key may send a minute; 0: any")
    rate_limit_tokens: int = Field(0, ge=0, description="tokens a minute of a key, of prompts and completions; 0: any")
    rate_limit_concurrent: int = Field(0, ge=0, description="requests of a key that may run at a time; 0: any")
    rate_limit_address_requests: int = Field(0, ge=0, description="requests for text that an address may send a minute; 0: any")
    rate_limit_address_tokens: int = Field(0, ge=0, description="tokens a minute of an address; 0: any")
    rate_limit_address_concurrent: int = Field(0, ge=0, description="requests of an address that may run at a time; 0: any")
    rate_limit_storage: str = Field(
        "memory", repr=False, description="where they are counted: memory (each worker for itself), or redis://HOST:PORT/DB, shared by all"
    )
    rate_limit_storage_file: str = Field("", description="file that holds the RATE_LIMIT_STORAGE, instead of it")
    rate_limit_fail_open: bool = Field(True, description="let requests through while Redis cannot be reached; else they get a 503")

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
    log_format: Literal["text", "json"] = Field("text", description="text, or json: one object a line")
    log_dir: str = Field("logs", min_length=1, description="folder the logs are written to")
    enable_log_file: bool = Field(True, description="write log files, not only to the terminal")
    log_retention_days: int = Field(30, ge=1, description="days a log file is kept")
    temp_retention_days: int = Field(7, ge=1, description="days an unfinished download is kept")

    @field_validator("trusted_proxies")
    @classmethod
    def _are_networks(cls, value: str) -> str:
        for word in _words(value):
            try:
                ipaddress.ip_network("::1" if word == "unix" else word, strict=False)
            except ValueError as error:
                raise ValueError(f"addresses, networks like 10.0.0.0/8, or unix; {error}") from error
        return value

    @field_validator("cors_origins")
    @classmethod
    def _are_origins(cls, value: str) -> str:
        words = _words(value)
        if words != ["*"] and not all(_ORIGIN.fullmatch(word) for word in words):
            raise ValueError("origins like https://app.example.org without a path, or * alone")
        return value

    @field_validator("rate_limit_storage")
    @classmethod
    def _is_storage(cls, value: str) -> str:
        if not _STORAGE.fullmatch(value):
            raise ValueError("memory, redis://HOST:PORT/DB, rediss://HOST:PORT/DB or redis+unix:///PATH")
        return value

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
    def keys_path(self) -> Path:
        return ROOT / self.api_keys_file

    @property
    def host_names(self) -> set[str]:
        return {word.lower() for word in _words(self.allowed_hosts)}

    @property
    def origins(self) -> set[str]:
        return {word.lower() for word in _words(self.cors_origins)}

    @property
    def proxies(self) -> list[str]:
        return _words(self.trusted_proxies)

    @property
    def has_keys(self) -> bool:
        """Whether requests need a key."""
        return bool(self.api_keys_file or self.api_key or self.api_key_file)

    def read_api_key(self) -> str:
        """API_KEY, or what API_KEY_FILE holds. Raises SettingsError."""
        return self._secret("api_key") or self.api_key

    def read_rate_limit_storage(self) -> str:
        """RATE_LIMIT_STORAGE, or what RATE_LIMIT_STORAGE_FILE holds. Raises SettingsError."""
        found = self._secret("rate_limit_storage") or self.rate_limit_storage
        if not _STORAGE.fullmatch(found):
            raise SettingsError("RATE_LIMIT_STORAGE_FILE is wrong: expected it to hold an address like redis://:PASSWORD@HOST:PORT/DB")
        return found

    def tls_files(self) -> tuple[Path, Path] | None:
        """Certificate and private key, or None for plain http."""
        return (ROOT / self.tls_certfile, ROOT / self.tls_keyfile) if self.tls_certfile else None

    @property
    def cached_prefixes(self) -> int:
        return self.cache_size if self.enable_caching else 0

    @property
    def vllm(self) -> dict[str, Any]:
        """What is set of vLLM's own settings."""
        return {name: value for name in VLLM if (value := getattr(self, name)) != type(self).model_fields[name].default}

    @classmethod
    def load(cls, env_file: Path | None = ROOT / ".env") -> "Settings":
        """Read the environment over `env_file` over the defaults. An empty value counts as not set.

        Raises SettingsError with one line: key, value, what was expected.
        """
        in_file = dotenv_values(env_file) if env_file else {}
        if env_file and any(_is_secret(name, in_file.get(name.upper())) for name in SECRETS):
            private.check_mode(env_file, f"{env_file.name} holds secrets")
        found = {**in_file, **os.environ}
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
        if not (text := private.read(ROOT / path, f"{name.upper()}_FILE").strip()):
            raise SettingsError(f"{name.upper()}_FILE={path!r} is wrong: expected a file that is not empty")
        return text


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _is_secret(name: str, value: str | None) -> bool:
    """An address is a secret only with a password in it."""
    return bool(value) and (name != "rate_limit_storage" or "@" in str(value))


def _is_installed(*modules: str) -> bool:
    try:
        return all(find_spec(module) for module in modules)
    except ModuleNotFoundError:  # not even the package around it
        return False
