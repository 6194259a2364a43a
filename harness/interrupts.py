"""SIGINT, SIGTERM and SIGHUP: the first one unwinds the process, later ones let it finish that.

While a command still imports, there is nothing to unwind, and an exception that is raised inside an
import may be swallowed; so the process exits at once. Afterwards the signal becomes an exception.
Where that is swallowed (by a `__del__`, or a library that catches everything) it is raised again.
Only the standard library is imported here, so that a process can listen before anything else.
"""

import _thread
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import NoReturn

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_COMMAND_LINE = ("__main__", "harness.__main__", "harness.cli")
"""Modules that import before they begin anything."""
_told: list[int] = []
"""The signal that unwinds this process, if one has come."""
_unwound = threading.Event()
"""A command has come to its end."""
_INSIST_S = 0.2


class ToldToEndError(BaseException):
    """A signal told this process to end; no handler of errors may swallow it."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = signal.Signals(number)


def listen() -> dict[signal.Signals, object]:
    """Answer the signals here from now on; return what answered them before.

    One that is ignored stays so: that is how `nohup` and a shell's `&` are meant.
    """
    before = {number: signal.getsignal(number) for number in SIGNALS}
    heard = {n: was for n, was in before.items() if was not in (signal.SIG_IGN, None)}
    if _answer not in heard.values():
        _told.clear()
    _unwound.clear()
    sys.unraisablehook = _say_unless_told
    for number in heard:
        signal.signal(number, _answer)
    return dict(heard)


def answer_as_before(before: dict[signal.Signals, object]) -> None:
    """Give the signals back to what `listen` has returned."""
    _unwound.set()
    for number, handler in before.items():
        signal.signal(number, handler)  # type: ignore[arg-type]  # as getsignal gave it


def stop_listening() -> None:
    """Let what is left, the end of the interpreter, be ended by a signal without a word."""
    _unwound.set()
    for number in SIGNALS:
        if signal.getsignal(number) is _answer:
            signal.signal(number, signal.SIG_IGN if _told else signal.SIG_DFL)


def line_of(number: signal.Signals) -> str:
    """Return the line that an interrupted command ends with."""
    return f"harness: interrupted by {number.name}. Type the command again to continue."


@contextmanager
def ctrl_c_held() -> Iterator[None]:
    """Start processes in here: a Ctrl-C, or a terminal that closes, reaches them as well.

    It waits in each until it says how it answers (`processes.end_as_parent_says`).
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _answer(number: int, frame: FrameType | None) -> None:
    if _told:  # told once more, it goes on cleaning up
        return
    _told.append(number)
    if _begins(frame):
        _leave(number)
    # Not threading's: the code that was interrupted may hold one of its locks.
    _thread.start_new_thread(_insist, (number,))
    raise ToldToEndError(number)


def _insist(number: int) -> None:
    """Tell the process once more where what was raised is unwinding nothing."""
    while not _unwound.is_set():
        time.sleep(_INSIST_S)
        if not _unwound.is_set() and not _is_unwinding():
            _told.clear()
            os.kill(os.getpid(), number)
            return


def _say_unless_told(swallowed: "sys.UnraisableHookArgs") -> None:
    if not isinstance(swallowed.exc_value, ToldToEndError):
        sys.__unraisablehook__(swallowed)


def _is_unwinding() -> bool:
    """Return whether the main thread handles what was raised, or cleans up behind it."""
    found: object = sys._current_exceptions().get(threading.main_thread().ident or 0)  # noqa: SLF001
    error = found[1] if isinstance(found, tuple) else found  # a value alone from Python 3.12 on
    while isinstance(error, BaseException):
        if isinstance(error, ToldToEndError):
            return True
        error = error.__context__
    return False


def _begins(frame: FrameType | None) -> bool:
    """Return whether this is an import that the command line itself asked for."""
    asks: FrameType | None = None
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            asks = frame.f_back
        frame = frame.f_back
    name = str(asks.f_globals.get("__name__")) if asks is not None else ""
    return name in _COMMAND_LINE or name.startswith("harness.cli.")


def _leave(number: int) -> NoReturn:
    with suppress(OSError):  # nobody may be there to read it
        os.write(2, f"{line_of(signal.Signals(number))}\n".encode())
    os._exit(128 + number)
