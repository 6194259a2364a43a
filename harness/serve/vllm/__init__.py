"""The `vllm` engine: a vLLM server in an environment and a process of its own."""

from harness.serve.vllm.capabilities import Demands
from harness.serve.vllm.environment import find_vllm
from harness.serve.vllm.layout import read_demands
from harness.serve.vllm.readiness import wait_until_gone
from harness.serve.vllm.server import check_vllm, check_vllm_serves, serve_vllm, vllm_command

__all__ = [
    "Demands",
    "check_vllm",
    "check_vllm_serves",
    "find_vllm",
    "read_demands",
    "serve_vllm",
    "vllm_command",
    "wait_until_gone",
]
