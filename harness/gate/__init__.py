"""Compare a candidate with its baseline and decide; plan what a suite can decide."""

from harness.gate.judge import Subject, judge
from harness.gate.paired import difference_bounds
from harness.gate.phrases import deployments_scope, not_compared
from harness.gate.power import (
    TaskPower,
    chance_of_go,
    joint_probability_of_go,
    plan_power,
    probability_of_go,
    smallest_margin,
)
from harness.gate.published import protocol_note
from harness.gate.reachable import check_margins
from harness.gate.reject import exit_code_of, reject
from harness.gate.repeated import Variances, variances_of
from harness.gate.rerun import Flips, count_flips, sum_flips
from harness.gate.sequential import items_to_decide, look, looks_of
from harness.gate.size import SIZE_CHECK, compare_sizes, refuse_not_reduced
from harness.gate.waivers import Overrides, explain_waivers
from harness.gate.worse import ALL_TASKS, Beside, beside

__all__ = [
    "ALL_TASKS",
    "SIZE_CHECK",
    "Beside",
    "Flips",
    "Overrides",
    "Subject",
    "TaskPower",
    "Variances",
    "beside",
    "chance_of_go",
    "check_margins",
    "compare_sizes",
    "count_flips",
    "deployments_scope",
    "difference_bounds",
    "exit_code_of",
    "explain_waivers",
    "items_to_decide",
    "joint_probability_of_go",
    "judge",
    "look",
    "looks_of",
    "not_compared",
    "plan_power",
    "probability_of_go",
    "protocol_note",
    "refuse_not_reduced",
    "reject",
    "smallest_margin",
    "sum_flips",
    "variances_of",
]
