"""A vLLM server that imports what it runs before it is told what to serve.

    python -m harness_vllm.waiting MODULE PIPE

PIPE is a named pipe that is read when the imports are done. What comes is one line of JSON,
`{"arguments": [...], "log": FILE}`: this process's output goes to FILE from then on, and it goes on
as `python -m MODULE ARGUMENTS` does. How many seconds the imports took is written to `PIPE.s`.
"""

import importlib
import json
import os
import runpy
import sys
import time
from pathlib import Path

USAGE = 2


def main(arguments: list[str]) -> int:
    """Import the server's module, and run it as soon as there is something to serve."""
    if len(arguments) != 2:  # noqa: PLR2004 -- a module and a pipe
        sys.stderr.write("usage: python -m harness_vllm.waiting MODULE PIPE\n")
        return USAGE
    module, pipe = arguments
    started = time.monotonic()
    importlib.import_module(module)
    Path(f"{pipe}.s").write_text(f"{time.monotonic() - started:.3f}", encoding="ascii")
    with open(pipe, encoding="utf-8") as told:  # noqa: PTH123 -- a pipe is no file of a Path
        order = json.loads(told.readline())
    log = os.open(order["log"], os.O_WRONLY | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(log, stream)
    os.close(log)
    sys.argv[1:] = order["arguments"]
    # `python -m` runs a module that nothing has imported yet; what it has imported stays.
    del sys.modules[module]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
