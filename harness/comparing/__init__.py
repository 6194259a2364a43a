"""Compare two runs: what came out differently, and the shortest list of what could have caused it.

Runs written by any version of harness that this one can read; each kind of ending.
"""

from harness.comparing.compare import compare_runs
from harness.comparing.fields import WHOLE

__all__ = ["WHOLE", "compare_runs"]
