"""`harness localize`: which stage made a run end as it did."""

from pathlib import Path
from typing import Annotated

import typer

from harness.cli import options as opt
from harness.cli.command import command
from harness.cli.console import Result

Device = Annotated[str, typer.Option("--device", help="cpu, cuda, or auto: a GPU where one is.")]
Vllm = Annotated[
    Path | None,
    typer.Option("--vllm", help="Environment of the vLLM that is asked too; the run's by default."),
]


def add_localize(app: typer.Typer) -> None:
    """Add the command."""

    @command(app, "localize runs/canary-nvfp4-1a2b3c4d")
    def localize(*, run_dir: opt.FinishedRun, device: Device = "auto", vllm: Vllm = None) -> Result:
        """Say where a NO-GO comes from: calibration, quantization, export, loader or kernel.

        The same texts are read by the source, the model quantized in memory, the reference engine
        on the files, and a vLLM emulated and deployed. What was not looked at is said.
        """
        from harness.cli import localizing

        return localizing.localized(run_dir, device, vllm)
