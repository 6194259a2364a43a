"""The candidate's server, begun while the candidate is made or verified."""

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from harness import serve
from harness.artifacts import EngineSpec
from harness.models import Source
from harness.preflight import Gpus, host_memory
from harness.serve import Ahead

_ROOM_BYTES = 4 << 30
"""Free memory of the host that is asked for: imports take 0.5 GiB, and what is made needs some."""


def begun_ahead(
    engine: EngineSpec, like: Source, *, records: Path, gpus: Gpus
) -> AbstractContextManager[Ahead | None]:
    """Begin what a server needs no checkpoint for, where there is memory to keep it meanwhile.

    Args:
        engine: what will serve.
        like: a model of about the candidate's size.
        records: where its log and load reports will be kept.
        gpus: those that it may use.
    """
    if host_memory().free < _ROOM_BYTES:
        return nullcontext()
    return serve.begun_ahead(engine, like, records=records, gpus=gpus)
