"""Fetch the wheels that a lock file names."""

import logging
import shutil
import subprocess
import sys
from pathlib import Path

from harness.errors import PrerequisiteError

_log = logging.getLogger("harness.prefetching")


def fetch_wheels(lock: Path, into: Path) -> None:
    """Download exactly what a lock file in pip's format names, as wheels, and keep the file.

    Raises:
        PrerequisiteError: pip is not there, or does not get one of them.
    """
    _log.info("prefetch: wheels of %s", lock)
    into.mkdir(parents=True, exist_ok=True)
    command = (
        *(sys.executable, "-m", "pip", "download", "-q", "--no-deps"),
        *("--only-binary", ":all:", "-d", str(into), "-r", str(lock)),
    )
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.strip()]
        why = next((line for line in said if "ERROR" in line), said[-1] if said else "no reason")
        message = f"the wheels of '{lock}' cannot be had: {why}. Mend the file, or reach its index."
        raise PrerequisiteError(message)
    shutil.copyfile(lock, into / "lock.txt")
