"""moto's S3 server on loopback, with latency, throttling, denied access and short answers on request."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

CHECKED = ("content-length", "x-amz-checksum-crc32", "x-amz-checksum-type")
ERROR = "<Error><Code>{code}</Code><Message>{code}, says the store</Message></Error>"


@dataclass
class Store:
    """A server and what it does before it answers: `faults` are taken one per request, None is none."""

    address: str
    latency_s: float = 0.0
    faults: list[str | None] = field(default_factory=list)
    always: str | None = None
    requests: list[tuple[str, str]] = field(default_factory=list)
    open: int = 0
    most_open: int = 0  # requests that waited for their answers at the same time

    def handle(self, app: Callable[..., Iterable[bytes]], environ: dict[str, Any], start: Any) -> Iterable[bytes]:
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        time.sleep(self.latency_s)
        self.open -= 1
        self.requests.append((environ["REQUEST_METHOD"], environ["PATH_INFO"]))
        fault = self.always or (self.faults.pop(0) if self.faults else None)
        if fault == "short":  # half of the body, with the length of the half
            caught: list[Any] = []
            body = b"".join(app(environ, lambda status, headers, *_: caught.extend((status, headers))))
            kept = [(name, value) for name, value in caught[1] if name.lower() not in CHECKED or not body]
            half = body[: len(body) // 2]
            start(caught[0], [*kept, ("Content-Length", str(len(half)))] if body else kept)
            return [half]
        if fault is not None:
            status, code = fault.split(" ", 1)
            body = b"" if environ["REQUEST_METHOD"] == "HEAD" else ERROR.format(code=code).encode()
            start(f"{status} {code}", [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
            return [body]
        return app(environ, start)


@contextlib.contextmanager
def serve() -> Iterator[Store]:
    """The server, in a thread."""
    pytest.importorskip("s3fs", reason="needs s3fs and moto's server")
    moto = pytest.importorskip("moto.server", reason="needs moto's server: pip install 'moto[s3]' flask flask-cors")
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Quiet(WSGIRequestHandler):
        protocol_version = "HTTP/1.1"

        def log(self, *_: object, **__: object) -> None:
            pass

    app = moto.DomainDispatcherApplication(moto.create_backend_app)
    server = make_server(
        "127.0.0.1", 0, lambda environ, start: store.handle(app, environ, start), True, request_handler=Quiet
    )
    store = Store(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield store
    finally:
        server.shutdown()
        thread.join()
