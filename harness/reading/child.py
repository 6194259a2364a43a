"""The child process that does what others' files ask for: matches, or renders (`limited`).

Run as a script, not as a part of the package, so that it begins in some 20 ms. One request a line
of its standard input, one answer a line of its standard output, both JSON.
"""

import contextlib
import json
import os
import re
import resource
import signal
import sys
import warnings
from collections.abc import Callable
from typing import Any


def main() -> None:
    """Answer requests until there are no more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent answers it, and this ends with it
    warnings.simplefilter("ignore")
    begun = json.loads(sys.stdin.readline())
    sys.path[:] = begun["path"]
    answer = _renderer(begun["most_characters"]) if begun["kind"] == "render" else _match
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    most = _memory() + begun["memory_bytes"]
    with contextlib.suppress(ValueError):  # a lower limit is in force already
        resource.setrlimit(resource.RLIMIT_AS, (most, resource.RLIM_INFINITY))
    with os.fdopen(os.dup(1), "w", encoding="ascii") as out:
        for line in sys.stdin:
            request = json.loads(line)
            _limit_cpu(request["cpu_s"])
            out.write(json.dumps(answer(request)) + "\n")
            out.flush()


def _limit_cpu(seconds: int) -> None:
    """Let the system end this process once it has worked `seconds` more; whole ones are counted."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    most = int(used.ru_utime + used.ru_stime) + seconds + 1
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    if hard != resource.RLIM_INFINITY:
        most = min(most, hard)
    resource.setrlimit(resource.RLIMIT_CPU, (most, hard))


def _memory() -> int:
    """Return the bytes of address space that this process has."""
    with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123 -- quick to begin
        return int(file.read().split()[0]) * resource.getpagesize()


def _match(request: dict[str, Any]) -> object:
    """Return which names a regular expression fits from their beginning."""
    pattern = re.compile(request["pattern"])
    return [pattern.match(name) is not None for name in request["names"]]


def _renderer(most_characters: int) -> Callable[[dict[str, Any]], object]:
    """Return what renders conversations, or says what the template raised."""
    from jinja2 import TemplateError  # noqa: PLC0415 -- matching does without
    from transformers.utils.chat_template_utils import (
        render_jinja_template,
    )

    def render(request: dict[str, Any]) -> object:
        answers: list[object] = []
        num_characters = 0
        for conversation, options in request["chats"]:
            try:
                rendered = render_jinja_template(
                    conversations=[conversation], chat_template=request["template"], **options
                )
                text = str(rendered[0][0])
                text.encode()
            except MemoryError:
                return "memory"
            except Exception as error:  # noqa: BLE001 -- a template may raise anything
                said = " ".join(str(error).split())[:300]
                answers.append([type(error).__name__, said, isinstance(error, TemplateError)])
                continue
            num_characters += len(text)
            if num_characters > most_characters:
                return "characters"
            answers.append(text)
        return answers

    return render


if __name__ == "__main__":
    main()
