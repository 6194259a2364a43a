"""Send requests to a server, a bounded number at once, and return what became of each.

A request may fail; a run may not. Refused connections, 429 and 5xx are tried again, a bounded
number of times, for a busy server may answer later; any other 4xx would be refused again and is
not. An answer that does not come in time is not asked for again either, as long as the server
lives: a second try would be a second draw for whoever is slow. What failed for good is returned as
an error in words. Only when the server itself is gone does everything end, at once and with one
line.

The API key is read from the environment when requests are sent, goes into one header, and is
removed from whatever a server sends back. Redirects are not followed, and neither proxies nor
.netrc are looked up: the key goes to the address that was typed, or nowhere. A server of ours has
a key of its own, and its answers count as long as its process runs: nobody else can listen in its
place before.

An answer is read up to a largest size, in the time of one try, and never unpacked.

The event loop runs in a thread of its own. Signals are handled in the main thread, where asyncio
would swallow an exception that a handler raises inside one of its callbacks.
"""

import asyncio
import itertools
import json
import os
import re
import threading
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, NamedTuple, Self, TypeVar

import aiohttp

from harness.artifacts import Endpoint
from harness.errors import EngineError, UsageError
from harness.over_http import IDENTITY, MAX_ANSWER_BYTES, MAX_SMALL_BYTES, in_words, parsed
from harness.processes import ProcessMark

T = TypeVar("T")
_TOO_MANY = 429
_OK = 200
_SERVER_ERROR = 500
COMPLETIONS, CHATS = "/v1/completions", "/v1/chat/completions"
_SECONDS_A_TOKEN = 0.25
"""What a request is given for each token that it may generate, on top of the usual time."""
_BYTES_A_TOKEN = 4096
"""Of an answer: the 21 log probabilities of a place take half of that."""
_PAGE_BYTES = 4 << 20
"""Of a server's page of metrics."""
_PRINTABLE = re.compile(r"[!-~]+")


@dataclass(frozen=True, kw_only=True, slots=True)
class RetryPolicy:
    """How long and how often a server is waited for."""

    tries: int = 5
    first_wait_s: float = 0.5
    """Before the second try; doubled for each further one."""
    timeout_s: float = 300.0
    """Of one try; a server that is asked for long answers is given more."""
    probe_s: float = 10.0
    """Within which a server that lives says so."""


RETRIES = RetryPolicy()


class HttpReply(NamedTuple):
    """What came back for one request: an object, or why there is none."""

    body: Mapping[str, Any] | None
    error: str | None
    status: int | None = None
    """HTTP status of the last try; None where no answer came."""
    timed_out: bool = False
    begun: float | None = None
    """When the request was sent, on the monotonic clock; of several tries, the last."""
    seconds: float | None = None
    """From there to the end of the reply."""


class Connection:
    """A server that requests are sent to until the context ends; what is under way ends with it."""

    def __init__(
        self,
        base_url: str,
        *,
        key: str | None,
        num_concurrent: int = 1,
        retries: RetryPolicy = RETRIES,
        process: ProcessMark | None = None,
    ) -> None:
        self._base_url = base_url
        self._key = key
        self._process = process
        self._num_concurrent = num_concurrent
        self._retries = retries
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="harness-score", daemon=True
        )

    def __enter__(self) -> Self:
        self._thread.start()
        self._in_loop(self._open()).result()
        return self

    def __exit__(self, *_: object) -> None:
        self._in_loop(self._close()).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def get(self, path: str) -> HttpReply:
        """Get one JSON object, once."""
        asked = self.once("GET", path, None, timeout_s=self._retries.probe_s)
        return self._in_loop(asked).result()

    def text(self, path: str) -> str | None:
        """Get a page that is no JSON, once; None where there is none."""
        return self._in_loop(self._page(path)).result()

    async def _page(self, path: str) -> str | None:
        timeout = aiohttp.ClientTimeout(total=self._retries.probe_s)
        try:
            async with self._session.get(
                self._base_url + path, allow_redirects=False, timeout=timeout
            ) as response:
                body, problem = await _receive(response, _PAGE_BYTES)
        except (aiohttp.ClientError, OSError, TimeoutError):
            return None
        return None if problem or response.status != _OK else body.decode(errors="replace")

    def send(
        self,
        path: str,
        payloads: Sequence[Mapping[str, Any]],
        *,
        on_reply: Callable[[int], None] | None = None,
    ) -> Future[list[HttpReply]]:
        """Post every payload to `path`, after what was sent before.

        Args:
            path: such as `/v1/completions`.
            payloads: one JSON object a request; long answers get more time.
            on_reply: called with the number of requests that are finished, after each.

        Returns:
            The replies to be, in the order of the payloads; to ask for them raises EngineError
            when the server is gone.
        """
        longest = max((int(payload.get("max_tokens") or 0) for payload in payloads), default=0)
        timeout_s = self._retries.timeout_s + _SECONDS_A_TOKEN * longest
        return self._in_loop(self._post(path, payloads, timeout_s, on_reply))

    def _in_loop(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    async def _open(self) -> None:
        # Whoever comes first is served first, so a later batch waits for an earlier one.
        self._free = asyncio.Semaphore(self._num_concurrent)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self._num_concurrent),
            headers=IDENTITY | ({"Authorization": f"Bearer {self._key}"} if self._key else {}),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
        )

    async def _close(self) -> None:
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)
        await self._session.close()

    async def _post(
        self,
        path: str,
        payloads: Sequence[Mapping[str, Any]],
        timeout_s: float,
        on_reply: Callable[[int], None] | None,
    ) -> list[HttpReply]:
        num_done = itertools.count(1)
        self._refuse_another()

        async def post(payload: Mapping[str, Any]) -> HttpReply:
            async with self._free:
                reply = await self._with_retries(path, payload, timeout_s)
            if on_reply is not None:
                on_reply(next(num_done))
            return reply

        tasks = [asyncio.create_task(post(payload)) for payload in payloads]
        try:
            replies = list(await asyncio.gather(*tasks))
        finally:
            for task in tasks:
                task.cancel()
        self._refuse_another()
        return replies

    def _refuse_another(self) -> None:
        """End the run if the server of ours has ended: whoever answers now is another."""
        if self._process is not None and not self._process.still_runs():
            message = (
                f"the server at {self._base_url} no longer answers: its process "
                f"{self._process.pid} has ended. Look at its log, then type the command again: "
                "finished tasks are kept."
            )
            raise EngineError(message)

    async def _with_retries(
        self, path: str, payload: Mapping[str, Any], timeout_s: float
    ) -> HttpReply:
        """Post until there is an answer, a refusal, or no retries left."""
        wait_s = self._retries.first_wait_s
        reply = await self._timed(path, payload, timeout_s)
        for _ in range(self._retries.tries - 1):
            if reply.timed_out:
                await self._check_alive(reply)
                return reply
            if not _may_change(reply):
                return reply
            await asyncio.sleep(wait_s)
            wait_s *= 2
            reply = await self._timed(path, payload, timeout_s)
        if _may_change(reply):
            await self._check_alive(reply)
        return reply

    async def _timed(self, path: str, payload: Mapping[str, Any], timeout_s: float) -> HttpReply:
        """Post once; the reply says how long that took."""
        begun = time.monotonic()
        reply = await self.once("POST", path, payload, timeout_s=timeout_s)
        return reply._replace(begun=begun, seconds=time.monotonic() - begun)

    async def once(
        self, method: str, path: str, payload: Mapping[str, Any] | None, *, timeout_s: float
    ) -> HttpReply:
        """Send one request once."""
        url = self._base_url + path
        timeout = aiohttp.ClientTimeout(total=timeout_s)
        try:
            async with self._session.request(
                method, url, json=payload, allow_redirects=False, timeout=timeout
            ) as response:
                body, problem = await _receive(response, _largest(payload))
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            words = str(error) or type(error).__name__
            timed_out = isinstance(error, TimeoutError)
            return HttpReply(None, in_words(self._without_key(words)), timed_out=timed_out)
        return HttpReply(None, problem, response.status) if problem else self._read(response, body)

    def _read(self, response: aiohttp.ClientResponse, body: bytes) -> HttpReply:
        status = response.status
        try:
            text, is_text = self._without_key(body.decode("utf-8")), True
        except UnicodeDecodeError:
            text, is_text = self._without_key(body.decode(errors="replace")), False
        values = parsed(text) if is_text else None
        if status != _OK:
            return HttpReply(None, in_words(f"HTTP {status}: {_words_of(values, text)}"), status)
        if not isinstance(values, dict):
            return HttpReply(None, "the answer is no JSON object", status)
        return HttpReply(values, None, status)

    async def _check_alive(self, reply: HttpReply) -> None:
        """End the run if the server is gone; a failed request alone does not say so."""
        for wait_s in (0.0, self._retries.first_wait_s):
            await asyncio.sleep(wait_s)
            probe = await self.once("GET", "/health", None, timeout_s=self._retries.probe_s)
            if probe.status is not None and probe.status < _SERVER_ERROR:
                return
        message = (
            f"the server at {self._base_url} no longer answers ({reply.error}). Look at its "
            "log, then type the command again: finished tasks are kept."
        )
        raise EngineError(message)

    def _without_key(self, text: str) -> str:
        if self._key is None:
            return text
        return text.replace(self._key, "***").replace(json.dumps(self._key)[1:-1], "***")


def connect(endpoint: Endpoint, *, retries: RetryPolicy = RETRIES) -> Connection:
    """Return the connection to a server, to be used as a context.

    Raises:
        UsageError: the API key cannot be sent.
    """
    return Connection(
        endpoint.base_url,
        key=endpoint.api_key or read_key(endpoint.api_key_variable),
        num_concurrent=endpoint.num_concurrent,
        retries=retries,
        process=endpoint.process,
    )


def read_key(variable: str | None) -> str | None:
    """Return the API key in the environment variable; None where there is none.

    Raises:
        UsageError: it holds what no header can.
    """
    key = os.environ.get(variable, "") if variable else ""
    if key and not _PRINTABLE.fullmatch(key):
        message = (
            f"the API key in {variable} holds a space, a line break or a letter that is not "
            "ASCII. Set it again."
        )
        raise UsageError(message)
    return key or None


def _largest(payload: Mapping[str, Any] | None) -> int:
    """Return how many bytes the answer to a request may have."""
    prompts = (payload or {}).get("prompt", ())
    tokens = sum(map(len, prompts)) + int((payload or {}).get("max_tokens") or 0)
    return min(MAX_SMALL_BYTES + _BYTES_A_TOKEN * tokens, MAX_ANSWER_BYTES)


async def _receive(response: aiohttp.ClientResponse, most: int) -> tuple[bytes, str | None]:
    """Return all of an answer, or what is wrong with it; the rest of one too long is not read."""
    coding = response.headers.get("Content-Encoding", "").strip().lower()
    if coding not in {"", "identity"}:
        return b"", "the answer is compressed, which was not asked for"
    pieces: list[bytes] = []
    size = 0
    async for piece in response.content.iter_any():
        size += len(piece)
        if size > most:
            return b"", f"the answer is longer than {most} bytes"
        pieces.append(piece)
    return b"".join(pieces), None


def _may_change(reply: HttpReply) -> bool:
    """Return whether the same request may fare better later."""
    status = reply.status
    return status is None or status == _TOO_MANY or status >= _SERVER_ERROR


def _words_of(values: object, text: str) -> str:
    """Return what a server says about a failure, in the two forms that servers use."""
    found = values.get("error", values) if isinstance(values, dict) else None
    words = found.get("message") if isinstance(found, dict) else found
    return words if isinstance(words, str) else text
