"""The command line: read arguments, call one function, print what it returns. No logic.

Results go to stdout, progress to stderr. Nothing that needs torch is imported before a command
that needs it runs, so that `harness --help` answers at once.
"""

from harness.cli.app import app
from harness.cli.start import run

__all__ = ["app", "run"]
