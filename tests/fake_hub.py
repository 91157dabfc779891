"""A server that speaks as much of Hugging Face's protocol as it takes to push a model and to fetch it."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

COMMIT = "0" * 39 + "1"


class FakeHub(ThreadingHTTPServer):
    """Keeps the files of repositories in memory, and the paths that were asked for."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.refused: dict[str, tuple[int, dict[str, str]]] = {}  # status and headers, by repository

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


@contextmanager
def running() -> Iterator[FakeHub]:
    with FakeHub() as hub:
        thread = threading.Thread(target=hub.serve_forever)
        thread.start()
        try:
            yield hub
        finally:
            hub.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    server: FakeHub

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        self.server.asked.append(self.path)
        if self.path == "/api/repos/create":
            made = json.loads(body)
            self._json({"url": f"{self.server.url}/{made.get('organization', 'me')}/{made['name']}"})
        elif "/preupload/" in self.path:
            names = [each["path"] for each in json.loads(body)["files"]]
            self._json({"files": [{"path": n, "uploadMode": "regular", "shouldIgnore": False} for n in names]})
        elif "/commit/" in self.path:
            repository = self.path.removeprefix("/api/models/").partition("/commit/")[0]
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    name = f"{repository}/{line['value']['path']}"
                    self.server.files[name] = base64.b64decode(line["value"]["content"])
            self._json({"commitUrl": f"{self.server.url}/{repository}/commit/{COMMIT}", "commitOid": COMMIT})
        else:
            self._json({})

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self.server.asked.append(path)
        for repository, (status, headers) in self.server.refused.items():
            if path.startswith(f"/api/models/{repository}/"):
                self._send(b"", headers, status)
                return
        if path.startswith("/api/models/"):
            parts = path.removeprefix("/api/models/").split("/")
            repository = "/".join(parts[:2])
            names = [name.removeprefix(f"{repository}/") for name in self.server.files if name.startswith(repository)]
            siblings = [{"rfilename": name} for name in names]
            if "tree" in parts:
                content = [
                    {"type": "file", "path": n, "size": len(self.server.files[f"{repository}/{n}"]), "oid": COMMIT}
                    for n in names
                ]
                self._json(content)
            else:
                self._json({"id": repository, "sha": COMMIT, "siblings": siblings, "tags": [], "private": False})
            return
        repository, _, rest = path.lstrip("/").partition("/resolve/")
        data = self.server.files.get(f"{repository}/{rest.partition('/')[2]}")
        if data is None:
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self._send(data, {"X-Repo-Commit": COMMIT, "ETag": f'"{hashlib.sha1(data).hexdigest()}"'})

    do_HEAD = do_GET

    def _json(self, value: Any) -> None:
        self._send(json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _send(self, data: bytes, headers: dict[str, str], status: int = 200) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the tests' output is theirs."""
