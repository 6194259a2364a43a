"""An environment whose Python is a script of ours: it stands in for an engine's."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

How = Callable[..., None]


def make_environment(folder: Path, fake: Path) -> Path:
    """Return the `bin/python` of an environment that runs `fake` and reads how.json beside it."""
    python = folder / "bin" / "python"
    python.parent.mkdir(parents=True)
    (folder / "how.json").write_text("{}", encoding="utf-8")
    script = f'FAKE_HOW={folder}/how.json exec {sys.executable} {fake} "$@"'
    python.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    python.chmod(0o755)
    return python


def how_of(python: Path) -> How:
    """Return what says, by name, how the script of such an environment shall behave."""
    path = python.parents[1] / "how.json"

    def say(**values: object) -> None:
        said = json.loads(path.read_text(encoding="utf-8")) | values
        path.write_text(json.dumps(said), encoding="utf-8")

    return say
