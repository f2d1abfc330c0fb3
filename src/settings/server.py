"""Settings of the server: where it listens, how its processes come and go, and who may ask it."""

import ipaddress
import re
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from src import ROOT
from src.settings.group import Group, words

_ORIGIN = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^/\s*]+")


class Server(Group):
    # The server
    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(8001, ge=1, le=65535, description="TCP port to listen on")
    debug: bool = Field(False, description="development mode: reload the gateway's code when it changes (the model stays loaded)")
    workers: int = Field(1, ge=1, le=64, description="HTTP worker processes; all of them share the loaded models")
    worker_class: Literal["gevent"] = Field("gevent", description="Gunicorn's worker class")
    worker_connections: int = Field(1000, ge=1, description="connections that one worker accepts at a time")
    max_connections_per_address: int = Field(
        256,
        ge=0,
        description="connections of one client address that one worker accepts at a time, trusted proxies and this machine excepted; "
        "0 = unlimited",
    )
    max_requests: int = Field(0, ge=0, description="requests after which a worker is replaced; 0 = never")
    max_requests_jitter: int = Field(
        0, ge=0, description="random number of requests added to MAX_REQUESTS, up to this many, drawn per worker"
    )
    shutdown_grace_seconds: float = Field(
        30, ge=0, le=3600, description="seconds that running requests get to finish when the server stops"
    )
    watchdog_seconds: float = Field(
        0,
        ge=0,
        description="seconds without an answer after which the server ends with status 1, so that what started it (launchd) starts it "
        "again; 0 = never. systemd has a watchdog of its own",
    )
    run_dir: str = Field("", max_length=80, description="private folder for the processes' sockets; empty = a new one in the temp folder")
    allow_core_dumps: bool = Field(False, description="keep the system's limit for core files, which hold prompts and keys")

    # Access
    api_keys_file: str = Field("", description="file of API keys, written by scripts/manage_keys.py; only its owner may be able to read it")
    api_key: str = Field("", repr=False, description="a single API key with every permission")
    api_key_file: str = Field("", description="file that holds the API_KEY")
    allow_unauthenticated: bool = Field(False, description="without keys, also serve on addresses other than loopback")
    admin_from_loopback: bool = Field(
        False, description="without keys, let every user of this machine download models, make keys and change logs"
    )
    metrics_require_key: bool = Field(True, description="when keys are configured, GET /metrics requires one")
    allowed_hosts: str = Field("", description="comma-separated host names accepted in the Host header besides this machine's; * = all")
    cors_origins: str = Field("", description="comma-separated origins whose web pages may call this server; * = all")
    trusted_proxies: str = Field(
        "",
        description="comma-separated addresses and networks of proxies whose X-Forwarded-For is trusted; unix = a proxy on a Unix socket",
    )
    tls_certfile: str = Field("", description="certificate for HTTPS (PEM, with its chain)")
    tls_keyfile: str = Field("", description="private key of the certificate (PEM)")

    @field_validator("trusted_proxies")
    @classmethod
    def _are_networks(cls, value: str) -> str:
        for word in words(value):
            try:
                ipaddress.ip_network("::1" if word == "unix" else word, strict=False)
            except ValueError as error:
                raise ValueError(f"addresses, networks like 10.0.0.0/8, or unix; {error}") from error
        return value

    @field_validator("cors_origins")
    @classmethod
    def _are_origins(cls, value: str) -> str:
        named = words(value)
        if named != ["*"] and not all(_ORIGIN.fullmatch(word) for word in named):
            raise ValueError("origins like https://app.example.org without a path, or * alone")
        return value

    @property
    def keys_path(self) -> Path:
        return ROOT / self.api_keys_file

    @property
    def host_names(self) -> set[str]:
        return {word.lower() for word in words(self.allowed_hosts)}

    @property
    def origins(self) -> set[str]:
        return {word.lower() for word in words(self.cors_origins)}

    @property
    def proxies(self) -> list[str]:
        return words(self.trusted_proxies)

    @property
    def has_keys(self) -> bool:
        """Whether requests need a key."""
        return bool(self.api_keys_file or self.api_key or self.api_key_file)

    def tls_files(self) -> tuple[Path, Path] | None:
        """Certificate and private key, or None for plain http."""
        return (ROOT / self.tls_certfile, ROOT / self.tls_keyfile) if self.tls_certfile else None
