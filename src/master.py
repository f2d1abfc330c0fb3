"""What Gunicorn's master does beyond Gunicorn: starts and stops the manager, lets workers hand over. Knows no route.

The master is never patched by gevent, but its workers are, after this was imported: nothing here may import ssl or
asyncio. State lives in the module because workers inherit it by fork.
"""

import contextlib
import errno
import ipaddress
import mmap
import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from src import private, rundir
from src.catalog import read_options
from src.errors import SettingsError
from src.keys import KeyFile
from src.notify import Notifier
from src.settings import ROOT, Settings

MANAGER_STOP_SECONDS = 10
MOST_DESCRIPTORS = 65_536  # open files and sockets of a process

_manager: subprocess.Popen[bytes] | None = None
_run_dir: str | None = None
_notifier: Notifier
_running: Settings | None = None  # those of this server, once it has begun
_inherited: dict[str, str] = {}  # the environment it was started in
_listening: list[tuple[Any, ...]] = []
_stopping = mmap.mmap(-1, 1)  # shared with the workers: 1 once the server stops, 2 once it stops at once
_successions: tuple[int, int] = (-1, -1)  # a pipe that holds a byte for each worker that waits for its successor


def load_settings() -> Settings:
    """The settings, or one line on standard error and exit status 2, also where a file that they name is wrong.

    Gunicorn asks again on SIGHUP; then what is wrong is told, and what there was before counts on.
    """
    try:
        return _read_settings() if _running is None else _read_again(_running)
    except SettingsError as error:
        if _running is None:
            _refuse(str(error))
        print(f"Not reloaded: {error}", file=sys.stderr, flush=True)
        return _running


def _read_settings() -> Settings:
    settings = Settings.load()
    read_options(settings.models_path)
    settings.read_api_key()
    settings.read_rate_limit_storage()
    if settings.api_keys_file:
        KeyFile(settings.keys_path).read()
    return settings


def _read_again(before: Settings) -> Settings:
    """The settings for new workers: .env may have changed. The listener and RUN_DIR stay as they are. Raises SettingsError."""
    global _running
    of_workers = dict(os.environ)
    os.environ.clear()
    os.environ.update(_inherited)  # what the master was started with, without what it added: that would win over .env
    try:
        kept = {name: getattr(before, name) for name in ("host", "port", "run_dir")}
        settings = _read_settings().model_copy(update=kept)
        if reason := _why_unguarded(settings, _listening):
            raise SettingsError(reason)
    except SettingsError:
        os.environ.clear()
        os.environ.update(of_workers)
        raise
    os.environ.update(settings.as_environ(secrets=True))
    _running = settings
    return settings


def on_starting(server: Any) -> None:
    """Before the master listens: see that it can, then start the manager, which begins to load the model."""
    global _manager, _run_dir, _notifier, _successions, _running, _inherited
    for address in server.cfg.address:
        if isinstance(address, tuple):
            _see_that_free(*address[:2])
    _notifier = Notifier()
    _raise_descriptor_limit()
    settings = load_settings()
    if files := settings.tls_files():
        _see_that_a_pair(*files)
    _see_that_guarded(settings, [address for address in server.cfg.address if isinstance(address, tuple)])
    if settings.metrics_listen:
        _see_that_free(*settings.metrics_listen, settings=("METRICS_ADDRESS", "METRICS_ADDRESS"))
    try:
        _run_dir = rundir.claim(settings.run_dir)
    except SettingsError as error:
        _refuse(str(error))
    with contextlib.suppress(FileNotFoundError):  # of a server that was killed: only a manager of this one may go by it
        os.unlink(os.path.join(_run_dir, "loaded.json"))
    _successions = os.pipe()
    os.set_blocking(_successions[0], False)
    # The workers and the manager find each other's sockets there, and all see the settings that the master saw.
    _inherited = dict(os.environ)
    _running = settings.model_copy(update={"run_dir": _run_dir})
    os.environ.update(_running.as_environ(secrets=True))
    _manager = _start_manager(server)


def when_ready(server: Any) -> None:
    """Extend two of the master's own steps, for which Gunicorn has no hook."""
    # Once more, for sockets that were handed over by systemd: they are not those that the settings name.
    listening = [listener.getsockname() for listener in server.LISTENERS]
    _listening[:] = [name for name in listening if isinstance(name, tuple)]
    _see_that_guarded(Settings.load(), _listening, lambda: on_exit(server))
    stop, manage_workers = server.stop, server.manage_workers

    def stop_and_tell(graceful: bool = True) -> None:
        """A worker alone cannot tell that the server stops from being replaced."""
        _stopping[0] = max(1, _stopping[0])
        signal.signal(signal.SIGTERM, lambda *_: _hurry(server))
        _take_in_more_sigterms(server)
        _notifier.send("STOPPING=1", "STATUS=running requests end")
        stop(graceful)

    def manage_manager_and_workers() -> None:
        """Once a second. A manager that died took its runners along; the new one loads the default model again."""
        global _manager
        if _manager is not None and _manager.poll() is not None:
            server.log.error("The manager (pid:%s) died and is started again", _manager.pid)
            _manager = _start_manager(server)
        manage_workers()

    server.stop, server.manage_workers = stop_and_tell, manage_manager_and_workers


def on_exit(server: Any) -> None:
    """After the workers have ended: stop the manager, which stops the runners."""
    if _manager is not None:
        _end(_manager)
    if _run_dir is not None:
        rundir.remove(_run_dir)


def stopping() -> bool:
    return bool(_stopping[0])


def stopping_at_once() -> bool:
    return _stopping[0] == 2


def _take_in_more_sigterms(server: Any) -> None:
    """Those that came before the first one was heeded."""
    waiting = []
    while not server.SIG_QUEUE.empty():
        waiting.append(server.SIG_QUEUE.get_nowait())
    for number in waiting:
        if number == signal.SIGTERM:
            _hurry(server)
        else:
            server.SIG_QUEUE.put_nowait(number)


def _hurry(server: Any) -> None:
    """Each SIGTERM after the first: streams end with an error now; with the next one without."""
    if stopping_at_once():
        server.SIG_QUEUE.put_nowait(signal.SIGQUIT)
    _stopping[0] = 2


def ask_succession() -> None:
    """For a worker that wants to be replaced, before it has the master start another."""
    os.write(_successions[1], b".")


def take_succession() -> bool:
    """For a new worker: is it somebody's successor? Each succession is taken once."""
    try:
        return bool(os.read(_successions[0], 1))
    except BlockingIOError:
        return False


def _start_manager(server: Any) -> "subprocess.Popen[bytes]":
    # A session of its own: Ctrl-C in the terminal reaches the master alone, which then stops the manager in order.
    return subprocess.Popen(
        [sys.executable, "-m", "src.manager", _url(server.cfg), str(os.getpid())],
        env={**os.environ, **_notifier.environ()}, cwd=ROOT, stdin=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip


def _url(config: Any) -> str:
    address = config.address[0]
    if not isinstance(address, tuple):
        return f"unix:{address}"
    host = f"[{address[0]}]" if ":" in address[0] else address[0]
    return f"{'https' if config.is_ssl else 'http'}://{host}:{address[1]}"


def _end(manager: subprocess.Popen[bytes]) -> None:
    try:
        manager.send_signal(signal.SIGTERM)
        manager.wait(MANAGER_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        manager.kill()  # its runners end with it


def _raise_descriptor_limit() -> None:
    """For this process and all that come of it: shells hand on 1024, macOS 256, where the system allows far more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(MOST_DESCRIPTORS, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(ValueError, OSError):  # macOS has a lower bound that it does not tell
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _see_that_guarded(settings: Settings, addresses: Sequence[tuple[Any, ...]], before_refusal: Callable[[], None] = lambda: None) -> None:
    if reason := _why_unguarded(settings, addresses):
        before_refusal()
        _refuse(reason)


def _why_unguarded(settings: Settings, addresses: Sequence[tuple[Any, ...]]) -> str | None:
    """Without keys, whoever reaches the address may use the models: nobody else's machine shall, unless the operator says so."""
    exposed = next((f"{host}:{port}" for host, port, *_ in addresses if not _is_loopback(host)), None)
    if not exposed or settings.has_keys or settings.allow_unauthenticated:
        return None
    return (
        f"{exposed} can be reached by other machines, and there are no API keys. Set API_KEYS_FILE (scripts/manage_keys.py makes "
        "keys) or API_KEY, or listen on HOST=127.0.0.1; ALLOW_UNAUTHENTICATED=true serves everybody who reaches it."
    )


def _is_loopback(host: str) -> bool:
    """Whether a listener there is reached by this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _see_that_a_pair(certificate: Path, key: Path) -> None:
    """Of files that Gunicorn's workers can serve https with."""
    names = f"TLS_CERTFILE={str(certificate)!r} and TLS_KEYFILE={str(key)!r}"
    try:
        private.check_mode(key, names, private.ANYBODY)
    except SettingsError as error:
        _refuse(str(error))
    # In a process of its own: ssl must not be imported here.
    load = "import ssl, sys; ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(sys.argv[1], sys.argv[2], password='')"
    done = subprocess.run(
        [sys.executable, "-c", load, str(certificate), str(key)], stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    if done.returncode:
        reason = done.stderr.strip().rpartition("\n")[2]
        _refuse(f"{names} are no certificate with its private key: {reason}")


def _refuse(reason: str) -> NoReturn:
    print(f"Not started: {reason}", file=sys.stderr)
    sys.exit(2)


def _see_that_free(host: str, port: int, settings: tuple[str, str] = ("HOST and PORT", "PORT")) -> None:
    """Gunicorn would try five times and then say less."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                reason = f"port {port} on {host} is in use{_holder(port)}. Stop that process, or set {settings[1]} to another port."
            else:
                reason = f"cannot listen on {host}:{port}: {error.strerror}. Set {settings[0]} to an address of this machine."
            _refuse(reason)


def _holder(port: int) -> str:
    """Which process listens there, where the system tells."""
    import psutil  # only here, where the process is about to end: the master stays small

    try:
        for connection in psutil.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr.port == port and connection.pid:
                process = psutil.Process(connection.pid)
                return f" by {process.name()} (process {process.pid}: {' '.join(process.cmdline())[:120]})"
    except psutil.Error:
        pass  # macOS tells only root
    return ""
