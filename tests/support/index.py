"""An index of packages on this machine, as pip asks one (https://packaging.python.org/specifications/simple-repository-api/)."""

import hashlib
import os
import threading
import zipfile
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler
from io import BytesIO

from packaging.utils import canonicalize_name

from tests.support.http_server import LocalServer


class Index:
    """Files by their names; each is listed under its project."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.asked: list[str] = []  # paths of requests
        handler = type("Handler", (_Handler,), {"index": self})
        self._server = LocalServer(("127.0.0.1", 0), handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def environ(self) -> dict[str, str]:
        """For pip; what else it may be configured with is left out."""
        own = ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL", "PIP_NO_INDEX", "PIP_CONSTRAINT")
        return {
            **{key: value for key, value in os.environ.items() if key not in own},
            "PIP_INDEX_URL": f"{self.url}/simple/",
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_NO_CACHE_DIR": "1",
            "NO_PROXY": "*",
        }

    def add(self, project: str, files: dict[str, bytes], requires: Sequence[str] = (), version: str = "1.0") -> str:
        """A wheel of a project; its file's name."""
        name = f"{project.replace('-', '_')}-{version}-py3-none-any.whl"
        self.files[name] = wheel_bytes(project, files, requires, version)
        return name

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def wheel_bytes(project: str, files: dict[str, bytes], requires: Sequence[str] = (), version: str = "1.0") -> bytes:
    name = project.replace("-", "_")
    info = f"{name}-{version}.dist-info"
    data = BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, content in files.items():
            archive.writestr(f"{name}/{path}", content)
        lines = "".join(f"Requires-Dist: {one}\n" for one in requires)
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {project}\nVersion: {version}\n{lines}")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return data.getvalue()


class _Handler(BaseHTTPRequestHandler):
    index: Index

    def log_message(self, *arguments: object) -> None:
        pass

    def do_GET(self) -> None:
        self.index.asked.append(self.path)
        kind, _, name = self.path.strip("/").partition("/")
        if kind == "simple":
            links = "".join(
                f'<a href="/files/{file}#sha256={hashlib.sha256(data).hexdigest()}">{file}</a>\n'
                for file, data in self.index.files.items()
                if canonicalize_name(file.split("-")[0]) == name
            )
            self._send(links.encode(), "text/html") if links else self.send_error(404)
        elif kind == "files" and name in self.index.files:
            self._send(self.index.files[name], "application/octet-stream")
        else:
            self.send_error(404)

    def _send(self, data: bytes, kind: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
