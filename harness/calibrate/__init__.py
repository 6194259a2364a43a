"""Calibrate: run real text through the unquantized model and measure its ranges."""

from harness.calibrate.data import check_data, data_digest
from harness.calibrate.following import Turn
from harness.calibrate.kept import is_public, keep_texts
from harness.calibrate.measure import Calibration, calibrate
from harness.calibrate.moments import most_turns
from harness.calibrate.samples import Extent, measure_extent
from harness.calibrate.store import read_stats, write_stats
from harness.calibrate.timing import CalibrationTimes, Workload, time_calibration

__all__ = [
    "Calibration",
    "CalibrationTimes",
    "Extent",
    "Turn",
    "Workload",
    "calibrate",
    "check_data",
    "data_digest",
    "is_public",
    "keep_texts",
    "measure_extent",
    "most_turns",
    "read_stats",
    "time_calibration",
    "write_stats",
]
