"""A hub on this machine: the part of Hugging Face's and ModelScope's HTTP APIs that their own clients use, with real files.

It can be told to misbehave: to break off, to send other bytes than it promised, to be slow.
"""

import hashlib
import json
import re
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler
from urllib.parse import parse_qs, unquote, urlsplit

from tests.support.http_server import LocalServer

INVERTED = bytes(range(255, -1, -1))  # each byte another one
LARGE = 10_000  # bytes from which on a file is in large file storage, with a SHA-256


class Hub:
    """Repositories by name; each is its files by path. Change them, and the commit changes."""

    def __init__(self) -> None:
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.asked: list[str] = []  # paths of requests, with their queries
        self.sent: Counter[str] = Counter()  # bytes by path
        self.cut_after: dict[str, list[int]] = {}  # by path: bytes after which to break off, a number a request
        self.wrong: set[str] = set()  # paths of which other bytes are sent
        self.status: dict[str, int] = {}  # paths that are answered with this status
        self.message = "as it was told"  # and with these words
        self.second_listing: dict[str, dict[str, bytes]] = {}  # of a repository on ModelScope, from the second time on
        self.longer: dict[str, dict[str, bytes]] = {}  # files that are sent in the place of those listed
        self.gate = threading.Event()  # bodies of large files wait for it half-way
        self.gate.set()
        self.at_gate = threading.Event()
        handler = type("Handler", (_Handler,), {"hub": self})
        self._server = LocalServer(("127.0.0.1", 0), handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def environ(self) -> dict[str, str]:
        """For the clients."""
        return {
            "HF_ENDPOINT": self.url,
            "MODELSCOPE_ENDPOINT": self.url,
            "MODELSCOPE_DOWNLOAD_INTRA_CLOUD": "false",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
        }

    def commit(self, repo: str) -> str:
        files = self.repositories[repo]
        return hashlib.sha1(repr(sorted((path, hashlib.sha1(data).digest()) for path, data in files.items())).encode()).hexdigest()

    def close(self) -> None:
        self.gate.set()
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        self.hub.asked.append(self.path)
        url = urlsplit(self.path)
        path, query = unquote(url.path), {key: values[0] for key, values in parse_qs(url.query).items()}
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/([^/]+))?", path):
            self._hugging_face_info(*found.groups())
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/([^/]+)", path):
            self._hugging_face_tree(found[1])
        elif found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self._file(found[1], found[3], body, hugging_face=True)
        elif found := re.fullmatch(r"/api/v1/models/([^/]+/[^/]+)/repo/files", path):
            self._modelscope_files(found[1], query.get("Revision", ""))
        elif found := re.fullmatch(r"/api/v1/models/([^/]+/[^/]+)/repo", path):
            self._file(found[1], query["FilePath"], body, hugging_face=False)
        else:
            self._json(404, {"error": "no such route", "Code": 404, "Message": "no such route"})

    def _json(self, status: int, content: object, **headers: str) -> None:
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _hugging_face_info(self, repo: str, revision: str | None) -> None:
        if repo not in self.hub.repositories:
            self._json(404, {"error": "Repository not found"}, X_Error_Code="RepoNotFound")
        elif revision not in (None, "main", self.hub.commit(repo)):
            self._json(404, {"error": f"Invalid rev id: {revision}"}, X_Error_Code="RevisionNotFound")
        else:
            siblings = [{"rfilename": path} for path in self.hub.repositories[repo]]
            self._json(200, {"id": repo, "sha": self.hub.commit(repo), "siblings": siblings})

    def _hugging_face_tree(self, repo: str) -> None:
        files = []
        for path, data in self.hub.repositories[repo].items():
            blob = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
            file = {"type": "file", "path": path, "size": len(data), "oid": blob}
            if len(data) >= LARGE:
                file["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}
            files.append(file)
        self._json(200, files)

    def _modelscope_files(self, repo: str, revision: str) -> None:
        if repo not in self.hub.repositories or revision != "master":
            self._json(404, {"Code": 10010205001, "Message": "record not found", "Success": False})
            return
        files = [
            {"Name": path.rsplit("/", 1)[-1], "Path": path, "Size": len(data), "Type": "blob", "Sha256": hashlib.sha256(data).hexdigest()}
            for path, data in self.hub.repositories[repo].items()
        ]
        self.hub.repositories[repo] = self.hub.second_listing.get(repo, self.hub.repositories[repo])
        self._json(200, {"Code": 200, "Data": {"Files": files}, "Success": True})

    def _file(self, repo: str, path: str, body: bool, *, hugging_face: bool) -> None:
        if status := self.hub.status.get(path) if body else None:
            self._json(status, {"error": self.hub.message, "Code": status, "Message": self.hub.message})
            return
        data = {**self.hub.repositories.get(repo, {}), **self.hub.longer.get(repo, {})}.get(path)
        if data is None:
            self._json(404, {"error": "Entry not found", "Code": 404, "Message": "Entry not found"}, X_Error_Code="EntryNotFound")
            return
        start = 0
        if found := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            start = int(found[1])
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(data) - start))
        self.send_header("Accept-Ranges", "bytes")
        if hugging_face:
            digest = hashlib.sha256(data) if len(data) >= LARGE else hashlib.sha1(b"blob %d\0" % len(data) + data)
            self.send_header("X-Repo-Commit", self.hub.commit(repo))
            self.send_header("ETag", f'"{digest.hexdigest()}"')
            self.send_header("X-Linked-Etag", f'"{digest.hexdigest()}"')
            self.send_header("X-Linked-Size", str(len(data)))
        self.end_headers()
        if body:
            self._send(path, data.translate(INVERTED) if path in self.hub.wrong else data, start)

    def _send(self, path: str, data: bytes, start: int) -> None:
        cuts = self.hub.cut_after.get(path, [])
        end = min(len(data), start + cuts.pop(0)) if cuts else len(data)
        step = 65536
        for at in range(start, end, step):
            if len(data) >= LARGE and at >= len(data) // 2 and not self.hub.gate.is_set():
                self.wfile.flush()
                self.hub.at_gate.set()
                self.hub.gate.wait(60)
            try:
                self.wfile.write(data[at : min(end, at + step)])
            except OSError:
                return
            self.hub.sent[path] += min(end, at + step) - at
        if end < len(data):
            self.wfile.flush()
            time.sleep(0.05)
            self.close_connection = True
            self.connection.close()
