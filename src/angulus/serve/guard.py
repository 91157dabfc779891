"""What a request must pass before it is answered: the key, the rate, the queue, the size and the time of its body."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import ipaddress
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

OPEN = ("/health", "/docs", "/openapi.json")  # without the key
PATHS = (*OPEN, "/embed", "/verify", "/search", "/metrics")
CLIENTS = 10_000  # whose rates are remembered
DRAINED, DRAIN_S = 4, 5.0  # of a refused request: times the largest body, and seconds

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


@dataclass(frozen=True)
class Limits:
    """What a server takes on.

    Attributes:
        body: bytes of a request.
        body_s: seconds in which a body must have arrived.
        waiting: requests in work or waiting; more are answered by 503.
        rate: requests per second of one client's address, in the long run and at once; 0: any number.
        batch: images that are embedded at a time, and images of one request.
    """

    body: int = 10 * 2**20
    body_s: float = 20.0
    waiting: int = 64
    rate: float = 100.0
    batch: int = 32


class Meters:
    """The figures of /metrics, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        named: dict[str, Any] = {"registry": self.registry}
        self.requests = Counter("angulus_requests", "Requests by path and status", ["path", "status"], **named)
        self.seconds = Histogram("angulus_request_seconds", "Time to the answer", ["path"], **named)
        self.batches = Histogram("angulus_batch_size", "Batches", ["step"], buckets=[1, 2, 4, 8, 16, 32, 64], **named)
        self.working = Gauge("angulus_requests_in_work", "Requests in work or waiting", **named)


class Guard:
    """Wraps an ASGI application; refusals are JSON with one sentence.

    With `addresses_only`, a request must name the server by an IP address or as localhost: the name of a web page that
    a browser on this machine shows can be made to lead here (DNS rebinding), and its scripts would read the answers.
    """

    def __init__(
        self, app: Any, limits: Limits, key: str | None, meters: Meters, *, addresses_only: bool = False
    ) -> None:
        self.app, self.limits, self.meters, self.addresses_only = app, limits, meters, addresses_only
        self._key = None if key is None else key.encode()
        self._clients: OrderedDict[str, tuple[float, float]] = OrderedDict()  # address: tokens, when counted
        self._working = 0

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path = scope["path"] if scope["path"] in PATHS else "other"
        began, status = time.perf_counter(), 500

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        refusal = self._refusal(scope)
        taken = int(refusal is None)  # refused requests take no place of those with the key
        self._count(taken)
        try:
            if refusal is None:
                await self.app(scope, self._bounded(receive), watched)
            else:
                await self._drain(scope, receive)
                await refusal(scope, receive, watched)
        finally:
            self._count(-taken)
            self.meters.requests.labels(path, str(status)).inc()
            self.meters.seconds.labels(path).observe(time.perf_counter() - began)

    def _count(self, more: int) -> None:
        self._working += more
        self.meters.working.set(self._working)

    def _refusal(self, scope: Message) -> JSONResponse | None:
        """The answer to a request that is not let in."""
        headers = dict(scope["headers"])
        if self.addresses_only and not _is_address(headers.get(b"host", b"localhost")):
            rule = "without a key, this server answers to localhost and IP addresses only"
            return refuse(403, f"{rule}; call it by one of them, or start it with a key")
        if scope["path"] in OPEN:
            return None
        if not self._has_key(headers):
            way = "send the header Authorization: Bearer KEY"
            return refuse(401, f"this server needs its key; {way}", {"WWW-Authenticate": "Bearer"})
        wait_s = self._wait_s((scope.get("client") or ("",))[0])
        if wait_s > 0:
            rule = f"one client may send {self.limits.rate:g} requests per second"
            return refuse(429, f"{rule}; wait {wait_s:.0f} s", {"Retry-After": f"{wait_s:.0f}"})
        if self._working >= self.limits.waiting:
            fault = f"{self.limits.waiting} requests are in work already"
            return refuse(503, f"{fault}; send this one again in a second", {"Retry-After": "1"})
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length) > self.limits.body:
            return refuse(413, self._too_large(), {"Connection": "close"})
        return None

    def _has_key(self, headers: dict[bytes, bytes]) -> bool:
        scheme, _, given = headers.get(b"authorization", b"").partition(b" ")
        return self._key is None or (scheme.lower() == b"bearer" and hmac.compare_digest(given.strip(), self._key))

    def _wait_s(self, client: str) -> float:
        """Seconds until a client may send again, 0 for now: a bucket of `rate` tokens that fills in a second."""
        rate, now = self.limits.rate, time.monotonic()
        if not rate:
            return 0
        most = max(1.0, rate)
        tokens, counted = self._clients.pop(client, (most, now))
        tokens = min(most, tokens + rate * (now - counted))
        self._clients[client] = (tokens - 1 if tokens >= 1 else tokens, now)
        if len(self._clients) > CLIENTS:
            self._clients.popitem(last=False)  # the one who was silent longest
        return 0 if tokens >= 1 else max(1.0, (1 - tokens) / rate)

    def _bounded(self, receive: Receive) -> Receive:
        """`receive`, until the body is too large or too slow."""
        latest, size = time.monotonic() + self.limits.body_s, 0
        complete = False

        async def bounded() -> Message:
            nonlocal size, complete
            if complete:  # only the end of the connection is left
                return await receive()
            try:
                async with asyncio.timeout(latest - time.monotonic()):
                    message = await receive()
            except TimeoutError as error:
                rule = f"the body must arrive within {self.limits.body_s:g} s"
                raise HTTPException(408, f"{rule}; got {size:,} bytes of it", {"Connection": "close"}) from error
            size += len(message.get("body", b""))
            if size > self.limits.body:
                if message.get("more_body"):
                    await self._drain({"headers": ()}, receive)
                raise HTTPException(413, self._too_large(), {"Connection": "close"})
            complete = not message.get("more_body", False)
            return message

        return bounded

    async def _drain(self, scope: Message, receive: Receive) -> None:
        """Read and drop what a client still sends, within limits: a connection that closes before loses the answer."""
        if any(name == b"expect" for name, _ in scope["headers"]):  # it sends nothing until it is asked to
            return
        left = DRAINED * self.limits.body
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_S):
                while left > 0:
                    message = await receive()
                    left -= len(message.get("body", b""))
                    if not message.get("more_body"):
                        return

    def _too_large(self) -> str:
        return f"the body must have at most {self.limits.body:,} bytes; it has more; send fewer or smaller images"


def refuse(status: int, sentence: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """An error as JSON: {"error": SENTENCE}."""
    return JSONResponse({"error": sentence}, status, headers)


def _is_address(host: bytes) -> bool:
    """Whether a Host header is localhost or an IP address, with or without a port."""
    try:
        name = urlsplit(f"//{host.decode('ascii')}").hostname or ""
        return name == "localhost" or bool(ipaddress.ip_address(name))
    except ValueError:
        return False
