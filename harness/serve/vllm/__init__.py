"""The `vllm` engine: a vLLM server in an environment and a process of its own."""

from harness.serve.readiness import wait_until_gone
from harness.serve.vllm.environment import find_vllm
from harness.serve.vllm.server import check_vllm, serve_vllm, vllm_command
from harness.serve.vllm.survey import VllmSurvey, survey_vllm

__all__ = [
    "VllmSurvey",
    "check_vllm",
    "find_vllm",
    "serve_vllm",
    "survey_vllm",
    "vllm_command",
    "wait_until_gone",
]
