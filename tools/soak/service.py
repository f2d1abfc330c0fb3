"""The server that is put to the test: started here, or one that runs already. Knows its processes by its own status."""

import asyncio
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tools.bench.client import Server

ROOT = Path(__file__).parents[2]
STARTING_SECONDS = 300.0


class ServiceFailed(Exception):
    """It does not start, does not answer, or does not end."""


class Service:
    """`process` is None for a server that was there before."""

    def __init__(self, url: str, process: "subprocess.Popen[bytes] | None" = None, folder: Path | None = None) -> None:
        self.url, self.process, self.folder = url, process, folder
        self.model = ""
        self._server = Server("soaked", url, "")

    @classmethod
    def start(cls, environ: dict[str, str]) -> "Service":
        """As a user does, on a free port, with a folder of its own for sockets and logs."""
        folder = Path(tempfile.mkdtemp(prefix="soak-"))
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        own = {"HOST": "127.0.0.1", "PORT": str(port), "RUN_DIR": str(folder / "run"), "LOG_DIR": str(folder / "logs")}
        with (folder / "output").open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "run.py", "--mode", "prod"],
                cwd=ROOT, env={**os.environ, **environ, **own}, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                start_new_session=True,
            )  # fmt: skip
        return cls(f"http://127.0.0.1:{port}", process, folder)

    async def wait_ready(self) -> None:
        """Returns once a model can be asked. Raises ServiceFailed."""
        give_up = asyncio.get_running_loop().time() + STARTING_SECONDS
        while True:
            health = await self._server.get("/health")
            if health and health.get("models_ready"):
                self.model = health["models_ready"][0]
                return
            if self.process and self.process.poll() is not None:
                raise ServiceFailed(f"The server ended with {self.process.returncode}: {self.output()[-2000:]}")
            if asyncio.get_running_loop().time() > give_up:
                raise ServiceFailed(f"{self.url}/health tells of no model that is ready, after {STARTING_SECONDS:.0f} s.")
            await asyncio.sleep(0.2)

    async def status(self) -> dict[str, Any] | None:
        """None while it cannot say."""
        try:
            status: dict[str, Any] | None = await asyncio.wait_for(self._server.get("/v1/system/status"), 10)
        except (TimeoutError, asyncio.TimeoutError):  # two classes before Python 3.11
            return None
        return status

    def stop(self) -> None:
        """SIGTERM, as systemd sends it. Raises ServiceFailed where it does not end in order."""
        if self.process is None:
            return
        self.process.terminate()
        try:
            status = self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise ServiceFailed("The server did not end within 60 s of SIGTERM.") from None
        if status:
            raise ServiceFailed(f"The server ended with {status}: {self.output()[-2000:]}")
        if self.folder:
            shutil.rmtree(self.folder, ignore_errors=True)

    def output(self) -> str:
        return (self.folder / "output").read_text(errors="replace") if self.folder else ""
