"""Compare a candidate with its baseline and decide; plan what a suite can decide."""

from harness.gate.judge import Subject, judge
from harness.gate.power import (
    TaskPower,
    check_margins,
    joint_probability_of_go,
    plan_power,
    probability_of_go,
    smallest_margin,
)
from harness.gate.reject import exit_code_of, reject

__all__ = [
    "Subject",
    "TaskPower",
    "check_margins",
    "exit_code_of",
    "joint_probability_of_go",
    "judge",
    "plan_power",
    "probability_of_go",
    "reject",
    "smallest_margin",
]
