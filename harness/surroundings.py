"""What a program takes from the folder and the environment that it is started in.

A folder that somebody else filled, such as a model that was cloned, may hold a `torch.py` or a
program named `gcc`. Nothing in it is ever run because it lies there: not by this process, and not
by those that it starts.
"""

import os
import sys
from pathlib import Path

_HOME = str(Path(__file__).resolve().parents[1])
"""Folder that holds the package: the source tree, or where packages are installed."""
SEARCHED = ("PATH", "LD_LIBRARY_PATH")
"""Variables that list folders in which programs and libraries are looked for."""


def leave_current_folder() -> None:
    """Look for modules and programs in no folder merely because it is the current one.

    Python puts it first for `python -m`, empty or relative entries of PATH name it too. Processes
    that are started later inherit both.
    """
    here = {"", str(Path.cwd())} if not sys.flags.safe_path else set()
    if sys.path[:1] and sys.path[0] in here:
        del sys.path[0]
        if _HOME not in sys.path:  # harness itself was found there: all else comes first
            sys.path.append(_HOME)
    os.environ["PYTHONSAFEPATH"] = "1"
    for name in SEARCHED:
        if name in os.environ:
            os.environ[name] = absolute_entries(os.environ[name])


def absolute_entries(folders: str) -> str:
    """Return a list such as PATH's without entries that depend on the current folder."""
    return os.pathsep.join(e for e in folders.split(os.pathsep) if Path(e).is_absolute())
