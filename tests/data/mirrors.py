"""A server on this machine that plays the mirrors of published files, well and badly."""

from __future__ import annotations

import contextlib
import http.server
import threading
import time
from collections.abc import Iterator
from typing import Any


class Mirrors:
    """A server on this machine plays the mirrors, each a folder of its addresses.

    What it answers: mirror -> file name -> (status, body, announced length); and what it was asked for.
    """

    def __init__(self) -> None:
        self.answers: dict[str, dict[str, tuple[int, bytes, int]]] = {}
        self.asked: list[str] = []
        self.silence_s = 0.0
        self.address = ""

    def holds(self, mirror: str, files: dict[str, bytes]) -> str:
        self.answers[mirror] = {name: (200, data, len(data)) for name, data in files.items()}
        return f"{self.address}/{mirror}/"


@contextlib.contextmanager
def serve() -> Iterator[Mirrors]:
    mirrors = Mirrors()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            mirrors.asked.append(self.path)
            time.sleep(mirrors.silence_s)
            _, mirror, name = self.path.split("/")
            status, body, length = mirrors.answers.get(mirror, {}).get(name, (404, b"", 0))
            with contextlib.suppress(ConnectionError):  # a client that timed out has gone
                self.send_response(status)
                self.send_header("Content-Length", str(length))
                self.end_headers()
                self.wfile.write(body)

        def log_message(self, *arguments: Any) -> None:
            pass

    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    running.daemon_threads = True
    mirrors.address = f"http://127.0.0.1:{running.server_address[1]}"
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield mirrors
    running.shutdown()
    thread.join()
    running.server_close()
