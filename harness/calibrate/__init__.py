"""Calibrate: run real text through the unquantized model and measure its ranges."""

from harness.calibrate.data import check_data, data_digest
from harness.calibrate.measure import Sharing, calibrate
from harness.calibrate.samples import Extent, measure_extent
from harness.calibrate.store import read_stats, write_stats
from harness.calibrate.trial import Asked, Trial, try_calibration

__all__ = [
    "Asked",
    "Extent",
    "Sharing",
    "Trial",
    "calibrate",
    "check_data",
    "data_digest",
    "measure_extent",
    "read_stats",
    "try_calibration",
    "write_stats",
]
