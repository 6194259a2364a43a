"""Answers that never end, are too long, are packed, or are no answers: each ends as one line."""

import gzip
import itertools
import json
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress

import pytest

from harness.errors import EngineError
from harness.over_http import MAX_SMALL_BYTES, get
from harness.score.client import Connection, HttpReply, RetryPolicy

KEY = "sk-hidden"
OK = b"HTTP/1.1 200 OK\r\n"
PAYLOAD = {"prompt": [[1, 2]], "max_tokens": 2}
IMPATIENT = RetryPolicy(tries=2, first_wait_s=0.01, timeout_s=1.0, probe_s=0.5)
Pieces = Callable[[], Iterable[bytes]]


@contextmanager
def answering(pieces: Pieces) -> Iterator[str]:
    """Yield the address of a server that answers whatever it is asked with the pieces."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ended = threading.Event()

        def answer(connection: socket.socket) -> None:
            with connection, suppress(OSError):
                connection.recv(1 << 16)
                for piece in pieces():
                    if ended.is_set():
                        return
                    connection.sendall(piece)

        def accept() -> None:
            with suppress(OSError):
                while not ended.is_set():
                    connection, _ = listener.accept()
                    threading.Thread(target=answer, args=(connection,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            ended.set()


def whole(body: bytes, *headers: bytes, status: bytes = OK) -> Pieces:
    lines = b"".join(header + b"\r\n" for header in headers)
    length = b"Content-Length: %d\r\n\r\n" % len(body)
    return lambda: [status + lines + length + body]


def forever(begin: bytes, piece: bytes, *, wait_s: float = 0.0) -> Pieces:
    def pieces() -> Iterator[bytes]:
        yield begin
        for _ in itertools.count():
            time.sleep(wait_s)
            yield piece

    return pieces


CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
LONG = OK + b"Content-Length: 99999999999\r\n\r\n"
HOSTILE: dict[str, Pieces] = {
    "drips": forever(LONG, b"x", wait_s=0.02),
    "drips chunks": forever(CHUNKED, b"1\r\nx\r\n", wait_s=0.02),
    "drips headers": forever(OK, b"X-A: b\r\n", wait_s=0.02),
    "never ends": forever(LONG, b"x" * 65536),
    "never ends its chunks": forever(CHUNKED, b"10000\r\n" + b"x" * 65536 + b"\r\n"),
    "never ends its headers": forever(OK, b"X-A: " + b"b" * 1000 + b"\r\n"),
    "never ends a header": forever(OK + b"X-A: ", b"b" * 65536),
    "never ends a chunk's size": forever(CHUNKED, b"1" * 1000),
    "continues for ever": forever(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "says nothing": forever(b"", b"", wait_s=0.02),
    "hangs up": lambda: [b""],
    "hangs up in its headers": lambda: [OK],
    "hangs up in its body": lambda: [LONG + b'{"a'],
    "hangs up in a chunk": lambda: [CHUNKED + b"ff\r\nabc"],
    "is packed": whole(gzip.compress(b"x" * (64 << 20)), b"Content-Encoding: gzip"),
    "is packed twice": whole(gzip.compress(b"x"), b"Content-Encoding: gzip, gzip"),
    "is packed somehow": whole(b"x", b"Content-Encoding: other"),
    "nests": whole(b"[" * 100_000),
    "nests objects": whole(b'{"a":' * 100_000),
    "is a list": whole(b"[1]"),
    "is text": whole(b'"a"'),
    "is empty": whole(b""),
    "is not UTF-8": whole(b'{"a": "\xff\xfe"}'),
    "has a large number": whole(b'{"a": ' + b"9" * 100_000 + b"}"),
    "is no HTTP": lambda: [b"\x00\xff\xfe" * 1000],
    "has a strange status": lambda: [b"HTTP/1.1 99999 x\r\n\r\n"],
    "has no length": lambda: [OK + b"Content-Length: many\r\n\r\n"],
    "has two lengths": lambda: [OK + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab"],
    "has a negative length": lambda: [OK + b"Content-Length: -1\r\n\r\n"],
    "redirects": whole(b"", b"Location: http://127.0.0.1:1/", status=b"HTTP/1.1 307 Go\r\n"),
    "refuses": whole(b'{"error": 5}', status=b"HTTP/1.1 400 No\r\n"),
    "refuses at length": whole(b"x" * (1 << 20), status=b"HTTP/1.1 400 No\r\n"),
}


def ask(pieces: Pieces) -> HttpReply:
    """Return the reply; a server of which nothing is heard ends the run, which is none either."""
    with (
        answering(pieces) as base_url,
        Connection(base_url, key=KEY, retries=IMPATIENT) as server,
    ):
        try:
            (reply,) = server.send("/v1/completions", [PAYLOAD]).result()
        except EngineError as error:
            return HttpReply(None, str(error))
        return reply


@pytest.mark.parametrize("how", sorted(HOSTILE))
def test_what_is_no_answer_is_a_failed_request_in_one_line(how: str) -> None:
    reply = ask(HOSTILE[how])
    assert reply.body is None
    assert reply.error
    assert reply.error.isprintable()
    assert len(reply.error) < 500


@pytest.mark.parametrize("how", sorted(HOSTILE))
def test_whether_a_server_lives_is_found_in_time_whatever_it_sends(how: str) -> None:
    with answering(HOSTILE[how]) as base_url:
        found = get(f"{base_url}/health", seconds=0.5)
    assert found is None or len(found.body) <= MAX_SMALL_BYTES
    assert found is None or not found.values() or how == "is not UTF-8" or found.status == 400


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("never ends", "the answer is longer than"),
        ("never ends its chunks", "the answer is longer than"),
        ("is packed", "the answer is compressed, which was not asked for"),
        ("nests", "the answer is no JSON object"),
        ("is not UTF-8", "the answer is no JSON object"),
        ("redirects", "HTTP 307"),
    ],
)
def test_it_is_said_what_is_wrong(how: str, words: str) -> None:
    assert words in str(ask(HOSTILE[how]).error)


def test_an_answer_may_be_as_long_as_what_was_asked_makes_it() -> None:
    body = json.dumps({"text": "x" * 3_000_000}).encode()
    long = PAYLOAD | {"max_tokens": 1000}
    with (
        answering(whole(body)) as base_url,
        Connection(base_url, key=None, retries=IMPATIENT) as server,
    ):
        few, many = server.send("/v1/completions", [PAYLOAD, long]).result()
    assert "longer than" in str(few.error)
    assert many.body is not None


def test_words_of_a_server_are_short_printable_and_without_the_key() -> None:
    words = f"\x1b[31mno\x00 {KEY} and {KEY}\n" + "x" * 1000
    body = json.dumps({"error": {"message": words}}).encode()
    error = str(ask(whole(body, status=b"HTTP/1.1 400 No\r\n")).error)
    assert error.startswith("HTTP 400: ?[31mno? *** and *** x")
    assert KEY not in error
    assert len(error) <= 200


def test_answers_are_asked_for_unpacked() -> None:
    asked: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                asked.append(connection.recv(1 << 16))
                connection.sendall(next(iter(whole(b"{}")())))

        thread = threading.Thread(target=answer)
        thread.start()
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with Connection(address, key=None, retries=IMPATIENT) as server:
            assert server.get("/v1/models").body == {}
        thread.join()
    assert b"accept-encoding: identity\r\n" in asked[0].lower()
    assert b"gzip" not in asked[0]
