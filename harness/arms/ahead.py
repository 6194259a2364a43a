"""The candidate's server, begun while the candidate is made or verified."""

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from harness import serve
from harness.artifacts import EngineSpec
from harness.errors import HarnessError
from harness.preflight import Gpus, host_memory
from harness.serve import Ahead

_log = logging.getLogger("harness.arms")
_ROOM_BYTES = 4 << 30
"""Free memory of the host that is asked for: imports take 0.5 GiB, and what is made needs some."""


@contextmanager
def begun_ahead(
    engine: EngineSpec, num_bytes: Callable[[], int], *, records: Path, gpus: Gpus
) -> Iterator[Ahead | None]:
    """Begin what a server needs no checkpoint for, where that can be and there is memory for it.

    It spares time and no more: whatever keeps it from beginning costs no run.

    Args:
        engine: what will serve.
        num_bytes: says how much the candidate's tensors will hold.
        records: where its log and load reports will be kept.
        gpus: those that it may use.
    """
    ahead: Ahead | None = None
    with ExitStack() as stack:
        if host_memory().free >= _ROOM_BYTES:
            begun = serve.begun_ahead(engine, num_bytes, records=records, gpus=gpus)
            try:
                ahead = stack.enter_context(begun)
            except (OSError, HarnessError) as error:
                _log.info("arms: the candidate's server is not begun before: %s", error)
        yield ahead
