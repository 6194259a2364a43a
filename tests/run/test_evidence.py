"""Before the judge, every stage must have looked at the same files."""

import dataclasses
from pathlib import Path
from typing import NamedTuple

import pytest

from harness.artifacts import Checkpoint, IntegrityReport, Scorecard, SmokeReport
from harness.errors import EvidenceError, ReasonCode
from harness.evidence import check_evidence
from harness.models import digest_folder
from harness.rundir import RunDirectory
from harness.stages import BASELINE, CANDIDATE, EXPORT, SMOKE, SMOKE_DECLARED, VERIFY
from tests.gate.arms import make_arm

MODEL = "b" * 64


class Case(NamedTuple):
    run: RunDirectory
    folder: Path


@pytest.fixture
def case(tmp_path: Path) -> Case:
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    digest = digest_folder(folder)
    run = RunDirectory(tmp_path)
    smoke = SmokeReport(
        smoke="canary",
        set_digest="5" * 64,
        checkpoint_digest=digest,
        baseline_digest=MODEL,
        numerics="deployed",
        declared=(),
        exercised=(),
        checks=(),
        measures=(),
        answers=(),
    )
    candidate = make_arm("candidate", {}).scorecard
    deployment = dataclasses.replace(candidate.deployment, checkpoint_digest=digest)
    run.nouns |= {
        EXPORT.name: Checkpoint(
            directory="checkpoint",
            scheme="NVFP4",
            kv_cache="none",
            num_bytes=2,
            num_tensors=1,
            num_quantized=1,
            bits_per_weight=4.5,
            sha256={},
            digest=digest,
        ),
        VERIFY.name: IntegrityReport(
            checkpoint="checkpoint", checkpoint_digest=digest, checks=(), input_scales={}
        ),
        SMOKE.name: smoke,
        SMOKE_DECLARED.name: dataclasses.replace(smoke, numerics="declared"),
        CANDIDATE.name: dataclasses.replace(candidate, deployment=deployment),
        BASELINE.name: make_arm("baseline", {}).scorecard,
    }
    return Case(run, folder)


def test_what_belongs_together_may_be_judged(case: Case) -> None:
    check_evidence(case.run, case.folder, MODEL)


@pytest.mark.parametrize(
    ("stage", "field", "named"),
    [
        (EXPORT.name, "digest", "as exported"),
        (VERIFY.name, "checkpoint_digest", "as verified"),
        (SMOKE.name, "checkpoint_digest", r"as smoked \(deployed\)"),
        (SMOKE_DECLARED.name, "checkpoint_digest", r"as smoked \(declared\)"),
        (SMOKE.name, "baseline_digest", r"the baseline .* as smoked \(deployed\)"),
    ],
)
def test_a_stage_that_looked_at_other_files_is_named(
    case: Case, stage: str, field: str, named: str
) -> None:
    case.run.nouns[stage] = dataclasses.replace(case.run.nouns[stage], **{field: "0" * 64})
    with pytest.raises(EvidenceError, match=named) as caught:
        check_evidence(case.run, case.folder, MODEL)
    assert caught.value.reason is ReasonCode.EVIDENCE_CHANGED


@pytest.mark.parametrize("stage", [CANDIDATE.name, BASELINE.name])
def test_scores_of_other_files_are_named(case: Case, stage: str) -> None:
    card: Scorecard = case.run.nouns[stage]
    deployment = dataclasses.replace(card.deployment, checkpoint_digest="0" * 64)
    case.run.nouns[stage] = dataclasses.replace(card, deployment=deployment)
    with pytest.raises(EvidenceError, match="as scored"):
        check_evidence(case.run, case.folder, MODEL)


def test_files_that_changed_before_the_judge_are_named(case: Case) -> None:
    (case.folder / "config.json").write_text("[]")
    with pytest.raises(EvidenceError, match="on the disk"):
        check_evidence(case.run, case.folder, MODEL)
