"""Other people's programs, which leave nothing behind: started under two keepers (keeper.py).

What a program prints goes to a file. A secret that it was given is overwritten there.
"""

import contextlib
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

GRACE_SECONDS = 8
"""Between SIGTERM and SIGKILL. vLLM ends in 1 s once ready, and not by itself while it loads."""
OUTER_EXTRA_SECONDS = 5
"""The outer keeper lets the inner one finish."""
AT_ONCE = b"0"
"""Written to a keeper's stdin: no grace, for a server that has only loaded so far."""
_KEEPER = Path(__file__).with_name("keeper.py")
_LOOK_SECONDS = 0.2
_PIECE = 1 << 20


def kept_command(command: Sequence[str]) -> list[str]:
    """Return the command that runs another under two keepers, one inside the other."""
    keeper = (sys.executable, "-I", "-S", str(_KEEPER))
    outer = (*keeper, str(GRACE_SECONDS + OUTER_EXTRA_SECONDS))
    return [*outer, *keeper, str(GRACE_SECONDS), *command]


def start_kept(
    command: Sequence[str],
    environment: Mapping[str, str],
    *,
    folder: Path,
    log: Path,
    stdout: int = subprocess.DEVNULL,
) -> subprocess.Popen[bytes]:
    """Start a program under two keepers; it ends when the pipe to its stdin does.

    Args:
        command: the program's, without a shell.
        environment: the whole of it.
        folder: that it runs in.
        log: what it prints to stderr is added to this file.
        stdout: what becomes of the rest, as subprocess takes it.
    """
    with log.open("ab") as out:
        return subprocess.Popen(
            kept_command(command),
            stdin=subprocess.PIPE,
            stdout=stdout,
            stderr=out,
            env=dict(environment),
            cwd=folder,
            start_new_session=True,
        )


def run_kept(
    command: Sequence[str],
    environment: Mapping[str, str],
    *,
    folder: Path,
    log: Path,
    meanwhile: Callable[[], None],
) -> int:
    """Run a program to its end, and return its status (128 + signal where one ended it).

    An exception here, or the end of this process in any way, ends it and all that it has started.

    Args:
        command: the program's, without a shell.
        environment: the whole of it.
        folder: that it runs in.
        log: what it prints is added to this file.
        meanwhile: called again and again; what it raises ends the program.
    """
    process = start_kept(command, environment, folder=folder, log=log)
    try:
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return process.wait(_LOOK_SECONDS)
            meanwhile()
    finally:
        if process.stdin is not None:
            process.stdin.close()
        process.wait()


def blot_out(secret: str, path: Path) -> None:
    """Overwrite a secret wherever a log holds it: SGLang writes it, and what vLLM loads might."""
    found = secret.encode()
    with contextlib.suppress(FileNotFoundError), path.open("r+b") as file:
        position, kept = 0, b""
        while piece := file.read(_PIECE):
            text = kept + piece
            if found in text:
                file.seek(position - len(kept))
                file.write(text.replace(found, b"*" * len(found)))
            position += len(piece)
            file.seek(position)
            kept = text.replace(found, b"*" * len(found))[1 - len(found) :]
