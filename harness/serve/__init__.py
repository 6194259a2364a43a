"""Serve a checkpoint, quantized or not, and say what its deployment really computes."""

from harness.serve.doctor import Diagnosis, examine
from harness.serve.engines import (
    begun_ahead,
    can_emulate,
    check_served,
    foretell_served,
    has_emulation,
    reads_prompts,
    resolve_engine,
    serve,
    serve_command,
)
from harness.serve.findings import FINDING_IDS
from harness.serve.reference import Served
from harness.serve.serving import Ahead
from harness.serve.vllm import VllmSurvey, find_vllm, survey_vllm, wait_until_gone

__all__ = [
    "FINDING_IDS",
    "Ahead",
    "Diagnosis",
    "Served",
    "VllmSurvey",
    "begun_ahead",
    "can_emulate",
    "check_served",
    "examine",
    "find_vllm",
    "foretell_served",
    "has_emulation",
    "reads_prompts",
    "resolve_engine",
    "serve",
    "serve_command",
    "survey_vllm",
    "wait_until_gone",
]
