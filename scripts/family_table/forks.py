"""Run each piece of work in a child of bounded memory that has everything imported already.

torch, transformers and harness take ten seconds to import and a tiny model takes one to quantize;
and a model that fails must not take the others with it.
"""

import json
import os
import resource
import signal
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

MEMORY = 10 << 30
SECONDS = 300

Found = Mapping[str, Any]


def in_a_fork(work: Callable[[], Found], told: Path) -> dict[str, Any]:
    """Return what `work` found; where it failed, its error, and always the seconds it took."""
    told.unlink(missing_ok=True)
    start = time.perf_counter()
    child = os.fork()
    if child == 0:
        _work(work, told)
    _, status = os.waitpid(child, 0)
    found: dict[str, Any] = {"error": f"the process ended with {os.waitstatus_to_exitcode(status)}"}
    if told.exists():
        found = json.loads(told.read_bytes())
        told.unlink()
    return found | {"seconds": round(time.perf_counter() - start, 1)}


def _work(work: Callable[[], Found], told: Path) -> None:
    """Do the work, write what was found, and end."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    signal.alarm(SECONDS)
    log = os.open(told.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    try:
        found = work()
    except BaseException as error:  # noqa: BLE001 -- whatever stops it is what is asked
        traceback.print_exc()
        where = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{Path(where.filename).name}:{where.lineno}"
        found = {"error": f"{type(error).__name__} at {place}: {error}"[:500]}
    told.write_text(json.dumps(found), encoding="utf-8")
    os._exit(0)
