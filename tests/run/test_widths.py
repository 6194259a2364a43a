"""Layers that are too narrow for an engine's blocks are refused before anything is calibrated."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness import shipped
from harness.errors import PrerequisiteError, ReasonCode
from harness.export import export
from harness.preflight.engine import check_widths
from harness.quantize import quantize
from harness.verify import verify
from tests.nouns import engine_spec

Make = Callable[..., Any]


def test_blocks_that_vllm_does_not_load_are_refused(planned: Make, tiny_qwen3: Path) -> None:
    made = planned(tiny_qwen3, "fp8_block")
    with pytest.raises(PrerequisiteError, match=r"\[128, 64\] in fp8_block") as caught:
        check_widths(engine_spec(name="vllm"), made.plan)
    assert caught.value.reason is ReasonCode.UNSUPPORTED_FORMAT


def test_the_reference_engine_and_wide_layers_are_not(planned: Make, tiny_qwen3: Path) -> None:
    check_widths(engine_spec(name="reference"), planned(tiny_qwen3, "fp8_block").plan)
    check_widths(engine_spec(name="vllm"), planned(tiny_qwen3, "fp8").plan)
    wide = planned(shipped.canary() / "model", "fp8_block").plan
    check_widths(engine_spec(name="vllm"), wide)


def test_the_verifier_says_so_of_an_engine(planned: Make, tiny_qwen3: Path, tmp_path: Path) -> None:
    made = planned(tiny_qwen3, "fp8_block")
    export(
        made.source, made.plan, quantize(made.source, made.plan, made.stats), into=tmp_path / "c"
    )
    report = verify(tmp_path / "c", engine="vllm==0.32.0")
    failed = {check.id: check.message for check in report.errors}
    assert list(failed) == ["engine-widths"]
    assert "does not load 12 layers in blocks of 128" in failed["engine-widths"]
