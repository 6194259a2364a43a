"""A vLLM server that imports what it runs before it is told what to serve.

    python -m harness_vllm.waiting MODULE FOLDER

When the imports are done it writes to `FOLDER/seconds` how long they took, and waits for a byte in
the named pipe `FOLDER/told`. Then it goes on as `python -m MODULE ARGUMENTS` does, with the list in
`FOLDER/arguments.json`.
"""

import importlib
import json
import runpy
import sys
import time
from pathlib import Path

USAGE = 2


def main(arguments: list[str]) -> int:
    """Import the server's module, and run it as soon as there is something to serve."""
    if len(arguments) != 2:  # noqa: PLR2004 -- a module and a folder
        sys.stderr.write("usage: python -m harness_vllm.waiting MODULE FOLDER\n")
        return USAGE
    module, folder = arguments[0], Path(arguments[1])
    started = time.monotonic()
    importlib.import_module(module)
    (folder / "seconds").write_text(f"{time.monotonic() - started:.3f}", encoding="ascii")
    with (folder / "told").open("rb", buffering=0) as told:
        told.read(1)
    sys.argv[1:] = json.loads((folder / "arguments.json").read_text(encoding="utf-8"))
    # `python -m` runs a module that nothing has imported yet; what it has imported stays.
    del sys.modules[module]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
