"""Rows of nightlies and verdicts in MLflow and in Weights & Biases, where somebody asks for it."""

from harness.tracking.sending import Trackers, check_trackers, track
from harness.tracking.values import TrackedRun, tracked_run

__all__ = ["TrackedRun", "Trackers", "check_trackers", "track", "tracked_run"]
