"""The two arms of the comparison: a folder is served and scored; the baseline's scores are kept.

The candidate is refused as soon as its deployment shows a fault or its smoke run fails, before
hours of scoring. The smoke run needs the baseline's answers to the same few prompts: they lie
beside its scores in the store. One server an arm, started at the first question, answers the smoke
prompts and the suite; where they fit, both arms' servers are at work at once (measuring.py).
"""

from harness.arms.ahead import begun_ahead
from harness.arms.background import Background, measured_in_background
from harness.arms.baseline import (
    BaselineOrder,
    keep_baseline,
    measure_baseline,
    probe_baseline,
    read_probe,
)
from harness.arms.candidate import Candidate, CandidateOrder
from harness.arms.elsewhere import asks_elsewhere
from harness.arms.findings import DEPLOYMENT_FILE, failed_findings, refuse_findings
from harness.arms.gpus import Gpus, assign_gpus
from harness.arms.measuring import Measuring
from harness.arms.smoking import DECLARED, SmokeBaseline, smoke
from harness.arms.watching import BaselineWatch

__all__ = [
    "DECLARED",
    "DEPLOYMENT_FILE",
    "Background",
    "BaselineOrder",
    "BaselineWatch",
    "Candidate",
    "CandidateOrder",
    "Gpus",
    "Measuring",
    "SmokeBaseline",
    "asks_elsewhere",
    "assign_gpus",
    "begun_ahead",
    "failed_findings",
    "keep_baseline",
    "measure_baseline",
    "measured_in_background",
    "probe_baseline",
    "read_probe",
    "refuse_findings",
    "smoke",
]
