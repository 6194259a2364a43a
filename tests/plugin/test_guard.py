"""Which of vLLM's programs are made to ask for the API key at every path; here without vLLM."""

import subprocess
import sys
from pathlib import Path

import pytest

PLUGIN = Path(__file__).resolve().parents[2] / "harness" / "plugin"
ASKED = """
import importlib.util, sys
sys.modules["__main__"].__spec__ = importlib.util.spec_from_loader(sys.argv[1], None)
from harness_vllm.guard import is_server_with_key
print(is_server_with_key())
"""


@pytest.mark.parametrize(
    ("program", "key", "expected"),
    [
        ("vllm.entrypoints.openai.api_server", "k", "True"),
        ("vllm.entrypoints.openai.api_server", "", "False"),
        ("harness_vllm.waiting", "k", "True"),
        ("vllm.model_executor.models.registry", "k", "False"),
        ("harness_vllm.adapters", "k", "False"),
    ],
)
def test_servers_with_a_key_are_guarded_whenever_vllm_loads_its_plugins(
    program: str, key: str, expected: str
) -> None:
    environment = {"PYTHONPATH": str(PLUGIN), "VLLM_API_KEY": key}
    command = [sys.executable, "-c", ASKED, program]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == expected
