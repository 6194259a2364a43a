"""Every known way to a GO that is not deserved."""

from harness.drill import ways_baselines, ways_files, ways_records
from harness.drill.way import Way

WAYS: tuple[Way, ...] = (*ways_files.WAYS, *ways_records.WAYS, *ways_baselines.WAYS)
