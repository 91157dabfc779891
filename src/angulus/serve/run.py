"""Start the server: a socket, a key, and a shutdown that answers what has begun."""

from __future__ import annotations

import ipaddress
import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from angulus.core import files
from angulus.core.checks import InputError

KEY_VARIABLE = "ANGULUS_SERVE_KEY"
DRAIN_S = 30  # for the requests in work, after SIGTERM
LEAST_KEY = 16  # characters


def read_key(path: Path | None) -> str | None:
    """The key in a file, or in the environment; None if there is neither.

    Raises:
        checks.InputError: a file that cannot be read; a key that is short, or not printable ASCII without spaces.
    """
    if path is None:
        key, where = os.environ.get(KEY_VARIABLE), KEY_VARIABLE
    else:
        where = str(path)
        try:
            key = path.read_text(encoding="ascii").strip()
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not ASCII text"
            raise InputError(f"{path} must be a file with the server's key; {reason}") from error
    if key is not None and (len(key) < LEAST_KEY or not all("!" <= sign <= "~" for sign in key)):
        rule = f"the key in {where} must have {LEAST_KEY} or more printable ASCII characters, and no spaces"
        raise InputError(f"{rule}; make one with `openssl rand -hex 24`")
    return key


def listen(host: str, port: int, key: str | None) -> socket.socket:
    """A bound socket; one that other machines can reach needs a key.

    Raises:
        checks.InputError: a host that is not this machine's alone, without a key; an address that is in use.
    """
    if not _is_local(host) and key is None:
        rule = f"a server on {host} can be reached from other machines, so it needs a key"
        raise InputError(f"{rule}; set {KEY_VARIABLE} or give --key-file, or leave --host out")
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listening = socket.create_server((host, port), family=family)
    except (OSError, OverflowError, UnicodeError) as error:
        reason = files.sentence(error) if isinstance(error, OSError) and error.errno else str(error)
        raise InputError(
            f"the server cannot listen on {host}:{port}: {reason}; give another --host or --port"
        ) from error
    # asyncio sets this only on sockets made with proto TCP; without it, answers wait 40 ms for a delayed ACK
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening


def serve(app: Any, listening: socket.socket, on_start: Callable[[], object]) -> None:
    """Answer until SIGINT or SIGTERM; requests in work are answered first, for at most `DRAIN_S` seconds."""
    import uvicorn

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            on_start()

    def leave(number: int, frame: FrameType | None) -> None:
        sys.exit(0)

    for number in (signal.SIGTERM, signal.SIGINT):  # uvicorn raises the signal again when it has ended
        signal.signal(number, leave)
    options: dict[str, Any] = {"log_level": "warning", "access_log": False, "server_header": False}
    config = uvicorn.Config(app, timeout_graceful_shutdown=DRAIN_S, timeout_keep_alive=20, **options)
    Server(config).run(sockets=[listening])


def _is_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
