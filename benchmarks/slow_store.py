"""The part of S3 that reading needs, on loopback, with a wait before each answer.

    python slow_store.py FOLDER WAIT_S [BYTES_PER_S]

It prints its port. A bucket is a folder in FOLDER. Signatures are not checked. GET /requests gives how many objects, or
ranges of them, were read. With BYTES_PER_S, the answers share a line of that rate.
"""

from __future__ import annotations

import asyncio
import math
import re
import sys
import urllib.parse
from pathlib import Path

TIME = "2026-01-01T00:00:00.000Z"


class Store(asyncio.Protocol):
    """One connection, kept alive."""

    requests = 0  # of all connections
    line_free = 0.0  # when what was sent before has passed the line, by the loop's clock

    def __init__(self, folder: Path, wait_s: float, bytes_per_s: float) -> None:
        self.folder, self.wait_s, self.bytes_per_s, self.received = folder, wait_s, bytes_per_s, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.received += data
        while b"\r\n\r\n" in self.received:
            head, _, self.received = self.received.partition(b"\r\n\r\n")
            asyncio.get_running_loop().call_later(self.wait_s, self.answer, head.decode())

    def answer(self, head: str) -> None:
        method, target, _ = head.split("\r\n")[0].split(" ")
        url = urllib.parse.urlsplit(target)
        query = dict(urllib.parse.parse_qsl(url.query))
        file = self.folder / urllib.parse.unquote(url.path).strip("/")
        if "list-type" in query:
            return self.send("200 OK", listing(file, query.get("prefix", "")).encode())
        if url.path == "/requests":
            return self.send("200 OK", str(Store.requests).encode())
        if not file.is_file():
            return self.send("404 Not Found", b"")
        size = file.stat().st_size
        facts = f'ETag: "{file.stat().st_mtime_ns:x}"\r\nLast-Modified: Thu, 01 Jan 2026 00:00:00 GMT\r\n'
        span = re.search(r"(?i)\r\nrange: bytes=(\d+)-(\d+)", head)
        if method == "HEAD":
            return self.send("200 OK", b"", facts, size)
        Store.requests += 1
        first, last = (int(span[1]), min(int(span[2]), size - 1)) if span else (0, size - 1)
        with file.open("rb") as opened:
            opened.seek(first)
            data = opened.read(last - first + 1)
        where = f"Content-Range: bytes {first}-{last}/{size}\r\n" if span else ""
        return self.send("206 Partial Content" if span else "200 OK", data, facts + where)

    def send(self, status: str, body: bytes, facts: str = "", length: int | None = None) -> None:
        length = len(body) if length is None else length
        answer = f"HTTP/1.1 {status}\r\n{facts}Content-Length: {length}\r\n\r\n".encode() + body
        loop = asyncio.get_running_loop()
        Store.line_free = max(loop.time(), Store.line_free) + len(answer) / self.bytes_per_s
        loop.call_at(Store.line_free, self.transport.write, answer)


def listing(bucket: Path, prefix: str) -> str:
    """The objects of a bucket as S3 lists them."""
    names = sorted(file.relative_to(bucket).as_posix() for file in bucket.rglob("*") if file.is_file())
    objects = (
        f"<Contents><Key>{name}</Key><Size>{(bucket / name).stat().st_size}</Size><LastModified>{TIME}</LastModified>"
        f'<ETag>"{(bucket / name).stat().st_mtime_ns:x}"</ETag></Contents>'
        for name in names
        if name.startswith(prefix)
    )
    return f"<ListBucketResult><IsTruncated>false</IsTruncated>{''.join(objects)}</ListBucketResult>"


async def main() -> None:
    folder, wait_s, *rate = Path(sys.argv[1]), *map(float, sys.argv[2:])
    bytes_per_s = rate[0] if rate else math.inf
    server = await asyncio.get_running_loop().create_server(lambda: Store(folder, wait_s, bytes_per_s), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
