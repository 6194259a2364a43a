"""A run that serves and is interrupted: started, then signalled, by the tests of its end."""

import os
import signal
import sys
import time
from pathlib import Path

import typer

from harness.artifacts import Endpoint, EngineSpec
from harness.cli.console import concluding
from harness.serve import serve


def main(name: str, place: str, model: str, records: str, how: str) -> None:
    """Serve with engine `name`; `place` is vLLM's Python, or the image."""
    engine = EngineSpec(
        name=name,
        numerics="declared",
        device="cpu",
        dtype="bfloat16",
        max_model_len=64,
        place=place if name == "vllm" else None,
        image=place if name == "docker" else None,
    )
    with concluding(as_json=False), serve(engine, Path(model), records=Path(records)) as served:
        if not isinstance(served, Endpoint):
            raise TypeError
        if how == "forked" and os.fork() == 0:
            # A worker that outlives the run holds every pipe that the run had open.
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            time.sleep(60)
            os._exit(0)
        sys.stdout.write(served.base_url + "\n")
        sys.stdout.flush()
        signal.pause()


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except typer.Exit as leave:
        sys.exit(leave.exit_code)
