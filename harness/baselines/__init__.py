"""The unquantized model's scores: measured once, kept by content, shared as one file."""

from harness.baselines.bundle import export_baseline, import_baseline
from harness.baselines.entries import (
    PROBE_FILE,
    RERUN_SHARE,
    SMOKE_SET,
    check_entry,
    check_kept,
    finish_entry,
    read_entry,
)
from harness.baselines.inputs import inputs_of, versions
from harness.baselines.scored import ScoredArm, find_scored, put_into, read_rerun, refuse_stale
from harness.baselines.store import (
    AGAIN,
    SCORECARD_FILE,
    Kept,
    check_writable,
    copy_into,
    entry,
    find_baseline,
    folder_of,
    kept_baselines,
    outdated_by,
    remove_baseline,
    store,
)

__all__ = [
    "AGAIN",
    "PROBE_FILE",
    "RERUN_SHARE",
    "SCORECARD_FILE",
    "SMOKE_SET",
    "Kept",
    "ScoredArm",
    "check_entry",
    "check_kept",
    "check_writable",
    "copy_into",
    "entry",
    "export_baseline",
    "find_baseline",
    "find_scored",
    "finish_entry",
    "folder_of",
    "import_baseline",
    "inputs_of",
    "kept_baselines",
    "outdated_by",
    "put_into",
    "read_entry",
    "read_rerun",
    "refuse_stale",
    "remove_baseline",
    "store",
    "versions",
]
