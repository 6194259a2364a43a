"""Find the mixed recipe of the least divergence for its bits, and let the gate judge it."""

from harness.tuning.goal import Goal, Wanted, wanted
from harness.tuning.tune import Ended, TuningPlan, plan_tuning, tune

__all__ = ["Ended", "Goal", "TuningPlan", "Wanted", "plan_tuning", "tune", "wanted"]
