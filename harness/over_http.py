"""Bounds of every answer that harness reads over HTTP, and one plain way to get a small one.

A server may be somebody else's, or no longer be what it was. So an answer has a largest size, as
sent (compressed ones are not asked for, and refused), a time in which all of it must have come,
and a depth of its JSON. Redirects are not followed, and no proxy is asked.
"""

import http.client
import io
import json
import socket
import time
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import urlsplit

MAX_ANSWER_BYTES = 32 << 20
"""The longest that is expected, log probabilities of 64k tokens, takes a third of it."""
MAX_SMALL_BYTES = 1 << 20
"""Of what says that a server lives, and of its list of models."""
IDENTITY = {"Accept-Encoding": "identity"}
_PIECE = 64 << 10
_LONGEST_WORDS = 200


class Got(NamedTuple):
    """An answer."""

    status: int
    body: bytes

    def values(self) -> Mapping[str, object]:
        """Return its JSON object; an empty one where it is none."""
        found = parsed(self.body.decode("utf-8", errors="replace"))
        return found if isinstance(found, dict) else {}


def parsed(text: str) -> object:
    """Return the JSON value in `text`; None where there is none that can be read.

    The depth is bounded by Python's own parser, digits of a number too.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def in_words(text: str) -> str:
    """Return what a server said as one short line that is safe to print."""
    line = " ".join(text[: 8 * _LONGEST_WORDS].split())
    return "".join(c if c.isprintable() else "?" for c in line)[:_LONGEST_WORDS]


def get(url: str, *, seconds: float, key: str | None = None) -> Got | None:
    """Get one small answer from a server on this machine; None where none came in time.

    Args:
        url: such as `http://127.0.0.1:8123/health`.
        seconds: in which all of it must have come.
        key: API key to bring.
    """
    give_up = time.monotonic() + seconds
    parts = urlsplit(url)
    lines = [f"GET {parts.path} HTTP/1.0", f"Host: {parts.netloc}", "Accept-Encoding: identity"]
    lines += [f"Authorization: Bearer {key}"] if key else []
    request = "\r\n".join([*lines, "Connection: close", "", ""]).encode()
    try:
        with socket.create_connection((parts.hostname, parts.port), seconds) as connection:
            connection.sendall(request)
            raw = _received(connection, give_up)
        response = http.client.HTTPResponse(_Raw(raw))  # type: ignore[arg-type]  # what it uses of a socket
        response.begin()
        return Got(response.status, response.read())
    except (OSError, http.client.HTTPException, ValueError):
        return None


def _received(connection: socket.socket, give_up: float) -> bytes:
    """Return all that is sent until the end.

    Raises:
        TimeoutError: it took too long.
        ValueError: it is too much.
    """
    pieces: list[bytes] = []
    size = 0
    while size <= MAX_SMALL_BYTES:
        left = give_up - time.monotonic()
        if left <= 0:
            raise TimeoutError
        connection.settimeout(left)
        piece = connection.recv(_PIECE)
        if not piece:
            return b"".join(pieces)
        pieces.append(piece)
        size += len(piece)
    raise ValueError(size)


class _Raw:
    """What has been received, in the place of a socket."""

    def __init__(self, raw: bytes) -> None:
        self._raw = raw

    def makefile(self, _: str) -> io.BytesIO:
        return io.BytesIO(self._raw)
