"""What stops a start: a port in use, files that are no TLS pair, an address open to others without API keys.

Run by the master: no ssl, no asyncio here. Each check raises SettingsError with what to do.
"""

import contextlib
import errno
import ipaddress
import socket
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from src import secret_files
from src.errors import SettingsError
from src.settings import Settings

LOOPBACK = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}  # where a listener on all addresses answers too
ANSWER_SECONDS = 1.0


def check_port_free(host: str, port: int, address_setting: str = "HOST and PORT", port_setting: str = "PORT") -> None:
    """Gunicorn would try five times and then say less."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                reason = _in_use(host, port, port_setting)
            else:
                reason = f"cannot listen on {host}:{port}: {error.strerror}. Set {address_setting} to an address of this machine."
            raise SettingsError(reason) from error
    if sys.platform == "darwin" and _answers(host, port):
        raise SettingsError(_in_use(host, port, port_setting))


def _in_use(host: str, port: int, port_setting: str) -> str:
    return f"port {port} on {host} is in use{_holder(port)}. Stop that process, or set {port_setting} to another port."


def _answers(host: str, port: int) -> bool:
    """macOS lets one program listen on an address of this machine and another on all of them: clients would get either."""
    with contextlib.suppress(OSError), socket.create_connection((LOOPBACK.get(host, host), port), timeout=ANSWER_SECONDS):
        return True
    return False


def _holder(port: int) -> str:
    """Which process listens there, where the system tells."""
    import psutil  # only here, where the process is about to end: the master stays small

    with contextlib.suppress(psutil.Error):
        if pid := _listener(port):
            process = psutil.Process(pid)
            return f" by {process.name()} (process {process.pid}: {' '.join(process.cmdline())[:120]})"
    return ""


def _listener(port: int) -> int | None:
    """Its process id. macOS tells psutil only where that is root, and lsof of the user's own processes."""
    import psutil

    try:
        for connection in psutil.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr.port == port and connection.pid:
                return connection.pid
    except psutil.Error:
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            command = ["lsof", "-nP", f"-iTCP:{port}", "-sTCP:LISTEN", "-Fp"]
            listed = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=5).stdout
            return next((int(line[1:]) for line in listed.splitlines() if line.startswith("p") and line[1:].isdigit()), None)
    return None


def check_tls_pair(certificate: Path, key: Path) -> None:
    """That Gunicorn's workers can serve https with these files."""
    names = f"TLS_CERTFILE={str(certificate)!r} and TLS_KEYFILE={str(key)!r}"
    secret_files.check_mode(key, names, secret_files.ANYBODY)
    # In a process of its own: ssl must not be imported here.
    load = "import ssl, sys; ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(sys.argv[1], sys.argv[2], password='')"
    done = subprocess.run(
        [sys.executable, "-c", load, str(certificate), str(key)], stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    if done.returncode:
        reason = done.stderr.strip().rpartition("\n")[2]
        raise SettingsError(f"{names} are no certificate with its private key: {reason}")


def check_guarded(settings: Settings, addresses: Iterable[Any]) -> None:
    """Without keys, whoever reaches an address may use the models: only this machine, unless the operator says otherwise.

    `addresses` as sockets have them; one of a Unix socket is no tuple.
    """
    exposed = next((f"{host}:{port}" for host, port, *_ in _tcp(addresses) if not _is_loopback(host)), None)
    if exposed and not settings.has_keys and not settings.allow_unauthenticated:
        raise SettingsError(
            f"{exposed} can be reached by other machines, and there are no API keys. Set API_KEYS_FILE (scripts/manage_keys.py makes "
            "keys) or API_KEY, or listen on HOST=127.0.0.1; ALLOW_UNAUTHENTICATED=true serves everybody who reaches it."
        )


def check_ports(settings: Settings, addresses: Iterable[Any]) -> None:
    """All that this server will listen on."""
    for host, port, *_ in _tcp(addresses):
        check_port_free(host, port)
    if settings.metrics_listen:
        check_port_free(*settings.metrics_listen, "METRICS_ADDRESS", "METRICS_ADDRESS")


def _tcp(addresses: Iterable[Any]) -> list[tuple[Any, ...]]:
    return [address for address in addresses if isinstance(address, tuple)]


def _is_loopback(host: str) -> bool:
    """Whether a listener there is reached by this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
