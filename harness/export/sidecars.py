"""Copy the files of a model that are no weights.

All of them are copied, byte for byte, because nobody can say which an engine needs: a lost chat
template changes every answer and no health check notices.
"""

import shutil
from pathlib import Path

from harness.models import sidecars


def copy_sidecars(source: Path, into: Path) -> None:
    """Copy the contents of all sidecars; links, as in the Hub's cache, become files."""
    for relative, path in sidecars(source).items():
        target = into / relative
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
