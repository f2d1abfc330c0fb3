"""Settings to Gunicorn, and the hooks of src/gunicorn/master.py (in the master) and src/gunicorn/worker.py (in the workers).

Gunicorn reads this file by itself when it is started in this folder. Its command line wins over what stands here, but
hooks have no place on a command line: they hold however it is started.

Never preload_app: gevent patches a worker after the app would have been imported.
"""

import os
import sys
from typing import Any

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from src.gunicorn.gunicorn_log import JSONLogger, TextLogger
from src.gunicorn.master import master

_settings = master.load_settings()

bind = f"[{_settings.host}]:{_settings.port}" if ":" in _settings.host else f"{_settings.host}:{_settings.port}"
workers = _settings.workers
worker_class = _settings.worker_class
worker_connections = _settings.worker_connections
max_requests = _settings.max_requests
max_requests_jitter = _settings.max_requests_jitter
timeout = 60  # seconds without a heartbeat of a worker, not the time a request may take
graceful_timeout = int(_settings.shutdown_grace_seconds) + 5  # the workers end their streams before
keepalive = _settings.keepalive_timeout
limit_request_line = _settings.max_request_line
limit_request_fields = _settings.max_headers
limit_request_field_size = _settings.max_header_bytes
backlog = 4096  # a flood of connections waits there, not in the kernel: one that finds no place there tries again after a second
umask = 0o077
control_socket_disable = True  # its path is shared by all instances of a user
sendfile = False
forwarded_allow_ips = ""  # src/api/access/address.py says whose word on the client's address is believed
certfile, keyfile = map(str, _settings.tls_files() or ("", ""))
loglevel = "info"
logger_class = JSONLogger if _settings.log_format == "json" else TextLogger
reload = _settings.debug
reload_engine = "poll"
if os.path.isdir("/dev/shm"):
    worker_tmp_dir = "/dev/shm"  # the heartbeat must not wait for a disk

on_starting = master.on_starting
when_ready = master.when_ready
on_exit = master.on_exit


def ssl_context(config: Any, make_default: Any) -> Any:
    from src.gunicorn.tls import bounded  # in the worker, which gevent has patched

    return bounded(make_default())


def post_worker_init(worker: Any) -> None:
    from src.gunicorn.worker import enter  # only now: gevent has patched what it imports

    enter(worker)


def pre_request(worker: Any, request: Any) -> None:
    worker.gateway.begin_request(request)
