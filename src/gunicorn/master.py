"""What Gunicorn's master does beyond Gunicorn: it starts and stops the manager, and lets workers hand over.

The master is never patched by gevent, but its workers are, after this was imported: nothing here may import ssl or asyncio.
"""

import contextlib
import functools
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from src import ROOT, operator_token, process_limits, rundir
from src.catalog import read_options
from src.errors import SettingsError
from src.gunicorn import health
from src.gunicorn.checks import check_guarded, check_ports, check_tls_pair
from src.gunicorn.handover import handover
from src.gunicorn.watchdog import Watchdog
from src.keys import KeyFile
from src.settings import Settings
from src.systemd import Notifier

MANAGER_STOP_SECONDS = 10


class Master:
    """The hooks of gunicorn.conf.py. Gunicorn reads that file again on SIGHUP, so the one instance lives in this module."""

    # Of Gunicorn 27's Arbiter, where it has no hook: the methods that are wrapped, and the attributes that are used.
    WRAPS = ("stop", "manage_workers")
    USES = ("SIG_QUEUE", "LISTENERS", "cfg", "log")

    _notifier: Notifier  # from on_starting()
    _watchdog: Watchdog

    def __init__(self) -> None:
        self._settings: Settings | None = None  # of this server, once it has started
        self._inherited: dict[str, str] = {}  # the environment that it was started in
        self._listening: list[Any] = []
        self._run_dir: str | None = None
        self._manager: subprocess.Popen[bytes] | None = None

    def load_settings(self) -> Settings:
        """The settings, or one line on standard error and exit status 2, also where a file that they name is wrong.

        Gunicorn asks again on SIGHUP; then a wrong setting is reported, and the settings before stay in force.
        """
        try:
            return self._load_again(self._settings) if self._settings else _load_checked()
        except SettingsError as error:
            if self._settings is None:
                _refuse(error)
            print(f"Not reloaded: {error}", file=sys.stderr, flush=True)
            return self._settings

    def _load_again(self, before: Settings) -> Settings:
        """The settings for new workers: .env may have changed. The listener and RUN_DIR stay as they are. Raises SettingsError."""
        kept = {name: getattr(before, name) for name in ("host", "port", "run_dir")}
        # Without what this master has put into its own environment, which would win over .env.
        settings = _load_checked(self._inherited).model_copy(update=kept)
        check_guarded(settings, self._listening)
        self._put_in_force(settings)
        return settings

    def _put_in_force(self, settings: Settings) -> None:
        """The workers and the manager find each other's sockets in RUN_DIR, and all have the settings that the master has."""
        os.environ.update(settings.as_environ(secrets=True))
        self._settings = settings

    def on_starting(self, server: Any) -> None:
        """Before the master listens: see that it can, then start the manager, which begins to load the model."""
        self._notifier = Notifier()
        process_limits.keep_new_files_private()
        process_limits.raise_descriptor_limit()
        settings = self.load_settings()
        if not settings.allow_core_dumps:
            process_limits.forbid_core_dumps()
        try:
            check_ports(settings, server.cfg.address)
            if files := settings.tls_files():
                check_tls_pair(*files)
            check_guarded(settings, server.cfg.address)
            self._run_dir = rundir.claim(settings.run_dir)
        except SettingsError as error:
            _refuse(error)
        operator_token.make(self._run_dir, _port(server.cfg))
        with contextlib.suppress(FileNotFoundError):  # of a server that was killed: only a manager of this one may go by it
            os.unlink(os.path.join(self._run_dir, "loaded.json"))
        health.listen(self._run_dir)
        handover.open()
        self._watchdog = Watchdog(0 if self._notifier else settings.watchdog_seconds)  # systemd has its own
        self._inherited = dict(os.environ)
        self._put_in_force(settings.model_copy(update={"run_dir": self._run_dir}))
        self._manager = self._start_manager(server)

    def when_ready(self, server: Any) -> None:
        """Wrap two of the master's own steps. Check the addresses again: sockets from systemd are not those of the settings."""
        self._listening = [listener.getsockname() for listener in server.LISTENERS]
        assert self._settings
        try:
            check_guarded(self._settings, self._listening)
        except SettingsError as error:
            self.on_exit(server)
            _refuse(error)
        for name in self.WRAPS:
            setattr(server, name, functools.partial(getattr(self, f"_{name}"), server, getattr(server, name)))

    def on_exit(self, server: Any) -> None:
        """After the workers have ended: stop the manager, which stops the runners."""
        if self._manager is not None:
            _end(self._manager)
            self._watchdog.close()
        if self._run_dir is not None:
            rundir.remove(self._run_dir)

    def _stop(self, server: Any, stop: Callable[[bool], None], graceful: bool = True) -> None:
        handover.stop()
        signal.signal(signal.SIGTERM, lambda *_: _hurry(server))
        _take_in_more_sigterms(server)
        self._notifier.send("STOPPING=1", "STATUS=running requests end")
        stop(graceful)

    def _manage_workers(self, server: Any, manage_workers: Callable[[], None]) -> None:
        """Once a second. A manager that crashed took its runners along; the new one loads their models again."""
        if self._manager is not None and self._manager.poll() is not None:
            server.log.error("The manager (pid:%s) crashed; restarting", self._manager.pid)
            self._manager = self._start_manager(server)
        if self._watchdog.hangs():
            from gunicorn.errors import HaltServer

            raise HaltServer("No request was answered for WATCHDOG_SECONDS; whoever started this server is to start it again")
        manage_workers()

    def _start_manager(self, server: Any) -> "subprocess.Popen[bytes]":
        # A session of its own: Ctrl-C in the terminal reaches the master alone, which then stops the manager in order.
        return subprocess.Popen(
            [sys.executable, "-m", "src.manager", _url(server.cfg), str(os.getpid())],
            env={**os.environ, **self._notifier.environ(), **self._watchdog.environ()}, pass_fds=self._watchdog.descriptors(),
            cwd=ROOT, stdin=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip


def _load_checked(environ: Mapping[str, str] = os.environ) -> Settings:
    """With all files that they name. Raises SettingsError."""
    settings = Settings.load(environ=environ)
    read_options(settings.models_path)
    settings.read_api_key()
    settings.read_rate_limit_storage()
    if settings.api_keys_file:
        KeyFile(settings.keys_path).read()
    return settings


def _refuse(error: SettingsError) -> NoReturn:
    print(f"Not started: {error}", file=sys.stderr)
    sys.exit(2)


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
    if handover.stopping_at_once:
        server.SIG_QUEUE.put_nowait(signal.SIGQUIT)
    handover.stop(at_once=True)


def _url(config: Any) -> str:
    address = config.address[0]
    if not isinstance(address, tuple):
        return f"unix:{address}"
    host = f"[{address[0]}]" if ":" in address[0] else address[0]
    return f"{'https' if config.is_ssl else 'http'}://{host}:{address[1]}"


def _port(config: Any) -> int | None:
    address = config.address[0]
    return address[1] if isinstance(address, tuple) else None


def _end(manager: "subprocess.Popen[bytes]") -> None:
    try:
        manager.send_signal(signal.SIGTERM)
        manager.wait(MANAGER_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        manager.kill()  # its runners end with it


master = Master()
