"""A real nginx with deploy/nginx/inference.conf, before instances on ports of the test's own."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import httpx

from src.settings import ROOT
from tests.support.programs import program
from tests.support.server import free_port, wait_until

CONFIGURATION = ROOT / "deploy/nginx/inference.conf"
MAIN = """
daemon off;
{user}
worker_processes 2;
pid {folder}/pid;
error_log {folder}/error.log;
events {{ worker_connections 512; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/inference.conf;
}}
"""


class Nginx:
    def __init__(self, ports: list[int], changes: dict[str, str] | None = None) -> None:
        """`ports` of the instances, up to three. `changes` in the configuration, for tests of what its lines are for."""
        self.folder = Path(tempfile.mkdtemp(prefix="test-nginx-"))
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        configuration = CONFIGURATION.read_text()
        for place, port in zip((8001, 8002, 8003), [*ports, None, None], strict=False):
            line = f"    server 127.0.0.1:{place} max_fails=2 fail_timeout=5s;\n"
            assert configuration.count(line) == 1
            configuration = configuration.replace(line, line.replace(str(place), str(port)) if port else "")
        for old, new in {"listen 8000;": f"listen 127.0.0.1:{self.port};", **(changes or {})}.items():
            assert configuration.count(old) == 1, old
            configuration = configuration.replace(old, new)
        (self.folder / "inference.conf").write_text(configuration)
        user = "user root;" if os.geteuid() == 0 else ""
        (self.folder / "nginx.conf").write_text(MAIN.format(folder=self.folder, user=user))
        command = [program("nginx"), "-c", str(self.folder / "nginx.conf"), "-e", str(self.folder / "error.log")]
        checked = subprocess.run([*command, "-t"], capture_output=True, text=True)
        assert checked.returncode == 0, checked.stderr
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        wait_until(self._answers, what="nginx's first answer")

    def _answers(self) -> bool:
        assert self.process.poll() is None, (self.folder / "error.log").read_text()
        try:
            return httpx.get(f"{self.url}/metrics", timeout=5).status_code == 404
        except httpx.TransportError:
            return False

    def __enter__(self) -> "Nginx":
        return self

    def __exit__(self, *raised: object) -> None:
        self.process.terminate()
        self.process.wait(20)
        shutil.rmtree(self.folder)
