"""A workflow of GitHub Actions that runs a matrix every night on self-hosted runners.

A job a kind of hardware runs its cells one after another in one nightly, so that cells share the
runner's GPUs; a last one judges the night, whatever became of the others. What it prints is a file
to be read and kept beside the matrix. `actions/checkout` removes what is not in the repository, so
the nights lie outside of it, where every runner finds them.
"""

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from harness.nightly.matrix import Cell, Matrix

_NO_LABEL = re.compile(r"[^a-z0-9-]+")
_HEAD = """\
# Runs {matrix} every night. `harness` is on each runner's PATH, and {out} is
# one folder for all of them.
name: {name}
on:
  schedule:
    - cron: "17 1 * * *"
  workflow_dispatch:
permissions:
  contents: read
concurrency:
  group: {name}
  cancel-in-progress: false
jobs:
  night:
    runs-on: [self-hosted, linux]
    outputs:
      # Jobs that are run again belong to the same night.
      name: ${{{{ steps.name.outputs.name }}}}
    steps:
      - id: name
        run: echo "name=$(date -u +%F)-$GITHUB_RUN_NUMBER" >> "$GITHUB_OUTPUT"
"""
_RUN = """\
  {job}:
    needs: night
    runs-on: [{labels}]
    timeout-minutes: 1440
    steps:
      - uses: actions/checkout@v5
      - env:
          NIGHT: ${{{{ needs.night.outputs.name }}}}
        run: >-
          {command}
"""
_COLLECT = """\
  collect:
    needs: [night, {jobs}]
    if: ${{{{ !cancelled() }}}}
    runs-on: [self-hosted, linux]
    steps:
      - uses: actions/checkout@v5
      - env:
          NIGHT: ${{{{ needs.night.outputs.name }}}}
        run: >-
          {command}
      - if: ${{{{ !cancelled() }}}}
        uses: actions/upload-artifact@v4
        with:
          name: nightly
          path: |
            {out}/trend.html
            {out}/nights/${{{{ needs.night.outputs.name }}}}/nightly.*
"""


def workflow_of(matrix: Matrix, out: Path) -> str:
    """Return the text of a workflow.

    Args:
        matrix: whose path is seen from the repository's root.
        out: folder of all nights on the runners.
    """
    groups: dict[tuple[str, ...], list[Cell]] = {}
    for cell in matrix.cells:
        groups.setdefault(_labels(cell), []).append(cell)
    jobs = {"-".join(["cells", *labels[2:]]): labels for labels in groups}
    head = _HEAD.format(matrix=matrix.path, out=out, name=matrix.name)
    runs = [
        _RUN.format(
            job=job,
            labels=", ".join(labels),
            command=_command(matrix, out, [f"--only {cell.name}" for cell in groups[labels]]),
        )
        for job, labels in jobs.items()
    ]
    collect = _COLLECT.format(
        jobs=", ".join(jobs), out=out, command=_command(matrix, out, ["--collect"])
    )
    return "".join([head, *runs, collect]).rstrip("\n")


def _labels(cell: Cell) -> tuple[str, ...]:
    """Return which runners a cell is for: those with GPUs have a label, and one of their kind."""
    kind = _NO_LABEL.sub("-", cell.hardware.lower()).strip("-")
    found = ("self-hosted", "linux", "gpu" if cell.gpus else "", kind)
    return tuple(label for label in found if label)


def _command(matrix: Matrix, out: Path, options: Sequence[str]) -> str:
    words = f"harness nightly {shlex.quote(str(matrix.path))}"
    where = f'--night "$NIGHT" --out {shlex.quote(str(out))}'
    return "\n          ".join([words, *options, where])
