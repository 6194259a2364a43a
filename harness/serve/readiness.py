"""Wait until a server answers, as long as it makes progress, and say why when it never will.

Loading takes seconds or an hour, so there is no limit on the whole: the server is given up when
neither its log nor its health has moved for a while. A server whose process has ended is given up
at once, with the end of its log and, where the cause is a known one, what to do.
"""

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from harness.errors import EngineError, ReasonCode
from harness.over_http import Got, get
from harness.serve.causes import find_cause
from harness.serve.process import RunningServer

_log = logging.getLogger("harness.serve")
_TAIL_LINES = 15
_MAX_LINE = 300
_TAIL_BYTES = 64 << 10
_REQUEST_SECONDS = 5
_DYING_SECONDS = 5
"""What a server that no longer answers is given to end, before it counts as alive."""
_FAILURES = 3
"""Health checks in a row after which a server that was ready is gone."""
_OK, _UNAUTHORIZED = 200, 401
_HEALTH = "/health"


@dataclass(frozen=True, kw_only=True, slots=True)
class StartLimits:
    """How long a server is waited for."""

    silence_seconds: float = 300
    """Without a new log line and without health, after which it is given up."""
    progress_seconds: float = 10
    """Between two lines on how far it is."""
    poll_seconds: float = 0.5


def wait_until_ready(
    server: RunningServer,
    *,
    model: str,
    limits: StartLimits,
    health: str = _HEALTH,
    length_of: Callable[[RunningServer, str, str], int | None] | None = None,
) -> int:
    """Return the server's context length in tokens once it answers.

    Args:
        server: what was started.
        model: name under which it must know the model.
        limits: how long to wait.
        health: path that answers 200 once the server can answer prompts.
        length_of: asks the server for it, and returns None as long as it does not answer; by
            default vLLM's way.

    Raises:
        EngineError: it ended, it stopped making progress, somebody else listens in its place, or it
            answers those who bring no key.
    """
    began = moved = told = time.monotonic()
    size = -1
    while True:
        if not server.is_alive():
            raise _ended(server, "before it was ready")
        length = (length_of or _context_length)(server, model, health)
        now = time.monotonic()
        if length is not None:
            _log.info("serve: ready after %.0f s", now - began)
            return length
        if (now_size := _size(server.log_path)) != size:
            size, moved = now_size, now
        if now - moved > limits.silence_seconds:
            raise _silent(server, limits.silence_seconds)
        if now - told >= limits.progress_seconds:
            told = now
            last = log_tail(server.log_path, 1)
            said = last[0].replace(server.key, "***") if last else "no output"
            _log.info("serve: starting, %.0f s: %s", now - began, said)
        time.sleep(limits.poll_seconds)


def log_tail(path: Path, num_lines: int = _TAIL_LINES) -> list[str]:
    """Return the last lines that say something, each cut to a readable length."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, _size(path) - _TAIL_BYTES))
            text = file.read(_TAIL_BYTES).decode("utf-8", errors="replace")
    except FileNotFoundError:
        return []
    # A progress bar is rewritten in place: what counts is its last state.
    lines = [line.rpartition("\r")[2].rstrip() for line in text.replace("\r\n", "\n").split("\n")]
    shown = ("".join(c if c.isprintable() else " " for c in line[:_MAX_LINE]) for line in lines)
    return [line for line in shown if line.strip()][-num_lines:]


@contextmanager
def naming_its_death(server: RunningServer) -> Iterator[None]:
    """Explain a failure of those who ask the server by its end, where it has ended.

    Raises:
        EngineError: the server has ended; the message holds the end of its log.
    """
    try:
        yield
    except EngineError as error:
        give_up = time.monotonic() + _DYING_SECONDS
        while server.is_alive() and not (server.is_listening() and _is_healthy(server.base_url)):
            if time.monotonic() > give_up:
                break
            time.sleep(_DYING_SECONDS / 10)
        if server.is_alive():
            raise
        raise _ended(server, "while it was in use") from error


def wait_until_gone(base_url: str, *, poll_seconds: float = 2) -> NoReturn:
    """Return never: look after a server that is ready until it no longer answers.

    Raises:
        EngineError: it did not answer several times in a row.
    """
    num_failed = 0
    while num_failed < _FAILURES:
        time.sleep(poll_seconds)
        num_failed = 0 if _is_healthy(base_url) else num_failed + 1
    message = f"the server at {base_url} no longer answers. Look at its log, and start it again."
    raise EngineError(message)


def _ended(server: RunningServer, when: str) -> EngineError:
    status = server.exit_code()
    text = "\n".join(log_tail(server.log_path, 400))
    cause = find_cause(text, status)
    tail = _end_of_log(server)
    hint = f" {cause.hint}" if cause is not None else ""
    message = (
        f"the server ended with status {status} {when}.{hint} "
        f"Its log is '{server.log_path}', it ends with:\n{tail}"
    )
    return EngineError(message, reason=cause.reason if cause else ReasonCode.ENGINE_FAILED)


def _silent(server: RunningServer, seconds: float) -> EngineError:
    tail = _end_of_log(server)
    message = (
        f"the server neither answered nor wrote to its log for {seconds:.0f} s and was given up. "
        f"Its log is '{server.log_path}', it ends with:\n{tail}"
    )
    return EngineError(message)


def _end_of_log(server: RunningServer) -> str:
    lines = "\n".join(f"  {line}" for line in log_tail(server.log_path))
    return lines.replace(server.key, "***")


def _context_length(server: RunningServer, model: str, health: str) -> int | None:
    """Return the length that the server tells for `model`; None as long as it does not answer.

    Raises:
        EngineError: it is not the server that listens, or it answers those who bring no key.
    """
    if not server.is_listening() or not _is_healthy(server.base_url, health):
        return None
    url = f"{server.base_url}/v1/models"
    unasked = get(url, seconds=_REQUEST_SECONDS)
    if unasked is not None and unasked.status != _UNAUTHORIZED:
        message = (
            f"the server answers requests without an API key (HTTP {unasked.status}), so others "
            "on this machine could use it or pass for it. It was ended."
        )
        raise EngineError(message)
    listed = get(url, seconds=_REQUEST_SECONDS, key=server.key)
    return None if unasked is None or listed is None else _length(listed, model)


def _length(listed: Got, model: str) -> int | None:
    entries = listed.values().get("data")
    for entry in entries if isinstance(entries, list) else ():
        if isinstance(entry, Mapping) and entry.get("id") == model:
            found = entry.get("max_model_len")
            return found if isinstance(found, int) and found > 0 else None
    return None


def _is_healthy(base_url: str, path: str = _HEALTH) -> bool:
    found = get(f"{base_url}{path}", seconds=_REQUEST_SECONDS)
    return found is not None and found.status == _OK


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
