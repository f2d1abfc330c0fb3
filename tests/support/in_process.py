"""The service in this process: the real app, manager and runner with their real sockets and the echo engine, but no Gunicorn and no
process beside this one. For what needs none of these: fields, refusals, access, quotas. Connections, workers, crashes, log files
and signals need tests.support.server.
"""

import asyncio
import contextlib
import os
import shutil
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import httpx
import httpx2
import openai
from loguru import logger

from src import operator_token
from src.api.app import create_app
from src.errors import ModelLoadFailed
from src.manager import runner_process
from src.manager.child import Attempt, Child, CrashedLoading
from src.manager.downloads import Downloads
from src.manager.manager import Manager, load_first
from src.manager.metrics.exposition import Exposition
from src.manager.report import Reporter
from src.manager.server import ManagerServer
from src.protocol import Failed, Message, RunnerLoading, RunnerReady
from src.runner.__main__ import serve
from src.settings import Settings


class InProcessChild(Child):
    """A runner as a task of the manager's loop."""

    def __init__(self, attempt: Attempt) -> None:
        self.stage, self.started_at, self.ready_at, self.first_private_bytes = "reading_weights", 0.0, 0.0, 0
        self._reports: asyncio.Queue[Message] = asyncio.Queue()
        self._stopping = asyncio.Event()
        settings = settings_of(attempt.environ)
        self._task = asyncio.create_task(serve(attempt.spec, settings, self._reports.put_nowait, self._stopping))

    @classmethod
    async def start(cls, attempt: Attempt) -> "InProcessChild":
        return cls(attempt)

    @property
    def pid(self) -> int:
        return os.getpid()

    async def report(self) -> RunnerLoading | RunnerReady:
        reports = asyncio.ensure_future(self._reports.get())
        await asyncio.wait({reports, self._task}, return_when=asyncio.FIRST_COMPLETED)
        if not reports.done():
            reports.cancel()
            raise CrashedLoading(await self.exit())
        message = reports.result()
        if isinstance(message, Failed):
            raise ModelLoadFailed(message.message)
        assert isinstance(message, RunnerLoading | RunnerReady)
        return message

    async def exit(self) -> str:
        return f"exit status {await asyncio.shield(self._task)}"

    async def has_served(self) -> bool:
        return True

    async def terminate(self, grace: float) -> bool:
        self._stopping.set()
        await self._task
        return True

    async def kill(self, reason: str | None = None) -> None:
        await self.terminate(0)


def settings_of(environ: Mapping[str, object]) -> Settings:
    """As a process with this environment has them. An empty value counts as not set."""
    return Settings.model_validate(
        {name: str(environ[name.upper()]) for name in Settings.model_fields if environ.get(name.upper(), "") != ""}
    )


class InProcess:
    """One service. Settings are keyword arguments in capitals, as in tests.support.server."""

    url = "http://127.0.0.1:8001"

    def __init__(self, *, key: str = "none", **settings: object) -> None:
        self.key = key
        self.folder = Path(tempfile.mkdtemp(prefix="in-process-"))
        run_dir = self.folder / "run"
        run_dir.mkdir(mode=0o700)
        operator_token.make(str(run_dir), None)
        defaults = {"CONTEXT_LENGTH": 1024, "THREADS": 1, "INFERENCE_ENGINE": "echo", "RUN_DIR": run_dir, "LOG_DIR": self.folder / "logs"}
        self.settings = settings_of({**defaults, **settings})
        self.errors: list[str] = []  # what was logged as an error
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._manage()))
        self._connection = Loopback()

    def http(self, **options: object) -> httpx.Client:
        """A client of the app itself."""
        return httpx.Client(transport=httpx.WSGITransport(self._from_httpx), base_url=self.url, **{"timeout": 30, **options})

    def http2(self) -> httpx2.Client:
        """The same for Anthropic's client, which comes with a library of its own for HTTP."""
        return httpx2.Client(transport=httpx2.WSGITransport(self._from_httpx), base_url=self.url, timeout=30)

    def client(self, **options: object) -> openai.OpenAI:
        defaults = {"api_key": self.key, "max_retries": 0, "http_client": self.http()}
        return openai.OpenAI(base_url=f"{self.url}/v1", **{**defaults, **options})

    def status(self) -> dict:
        with self.http(headers={"Authorization": f"Bearer {self.key}"}) as http:
            return http.get("/v1/system/status").json()

    @property
    def operator(self) -> dict[str, str]:
        """What shows that a request comes from the operator, where there are no keys."""
        return {"Authorization": f"Bearer {Path(self.settings.run_dir, operator_token.FILE).read_text().strip()}"}

    def wsgi(self, environ: dict, start_response: Callable) -> Iterator[bytes]:
        """The app, which finds its client's socket where Gunicorn puts it."""
        return self.app.wsgi_app({**environ, "gunicorn.socket": self._connection.server}, start_response)

    def _from_httpx(self, environ: dict, start_response: Callable) -> Iterator[bytes]:
        """It leaves the path as text, where WSGI has its bytes, one a character."""
        return self.wsgi({**environ, "PATH_INFO": environ["PATH_INFO"].encode().decode("latin-1")}, start_response)

    async def _manage(self) -> None:
        self._loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
        run_dir = Path(self.settings.run_dir)
        manager = Manager(self.settings, run_dir)
        server = ManagerServer(manager, Reporter(manager), Downloads(self.settings), Exposition(manager.fleet))
        await server.bind(str(run_dir / "manager.sock"))
        await load_first(manager)
        self._ready.set()
        await self._stopping.wait()
        await manager.close()
        server.close()

    def __enter__(self) -> "InProcess":
        self._log = logger.add(lambda line: self.errors.append(str(line)), level="ERROR")
        self._child, runner_process.Child = runner_process.Child, InProcessChild
        self._thread.start()
        assert self._ready.wait(60), "the model did not load"
        self.app = create_app(self.settings)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()
        runner_process.Child = self._child
        self._connection.close()
        with contextlib.suppress(ValueError):  # a test that configured the logs has removed it
            logger.remove(self._log)
        shutil.rmtree(self.folder, ignore_errors=True)


class Loopback:
    """A connection on a loopback address, as between a client of this machine and the server."""

    def __init__(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self._client = socket.create_connection(listener.getsockname())
            self.server, _ = listener.accept()

    def close(self) -> None:
        for end in (self._client, self.server):
            with contextlib.suppress(OSError):
                end.close()
