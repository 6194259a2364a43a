"""The smoke stages of a run: who is served, for what, and what ends the run."""

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from harness import arms, baselines, judging
from harness.artifacts import (
    BaselineInputs,
    Deployment,
    EngineSpec,
    Finding,
    Probe,
    Severity,
    SmokeReport,
    SmokeSet,
    load,
    save,
)
from harness.errors import EngineError, ReasonCode, RejectedError
from harness.models import digest_folder, open_source
from harness.preflight import Together, Way
from harness.recipe import Request, load_suite, load_trial
from harness.rundir import RunDirectory
from harness.smoke import CHECK_IDS
from tests.smoke.scripted import BASELINE, DEPLOYMENT, SET, candidate, readings, salad

ENGINE = EngineSpec(name="vllm", numerics="deployed", device="cuda", dtype="bfloat16")
WEIGHTS_ALONE = ("weights:nvfp4",)
IN_TURN = Together(way=Way.IN_TURN, why="there is one GPU", asks_first=True)


class FakeServed(NamedTuple):
    deployment: Deployment


class Stage:
    """What is served instead of vLLM: kernels hide the inputs unless they are emulated."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.started: list[str] = []
        self.running = 0
        self.asked: list[str] = []
        self.answers: dict[str, Probe] = {}
        self.emulation_fails = False
        self.hides = True
        self.findings: tuple[Finding, ...] = ()
        for arm in ("baseline", "candidate"):
            monkeypatch.setattr(f"harness.arms.{arm}.serve", self.serve)
        monkeypatch.setattr("harness.score.probe", self.probe)

    @contextmanager
    def serve(self, engine: EngineSpec, folder: Path, **_: object) -> Iterator[FakeServed]:
        self.started.append(f"{folder.name} {engine.numerics}")
        declared = engine.numerics == "declared"
        if declared and self.emulation_fails:
            message = "the server refuses --moe-backend emulation"
            raise EngineError(message)
        assert self.running == 0, "two servers at once on one device"
        self.running += 1
        exercised = DEPLOYMENT.declared if declared or not self.hides else WEIGHTS_ALONE
        if folder.name == "model":
            exercised = ()
        findings = self.findings if folder.name == "checkpoint" else ()
        try:
            yield FakeServed(
                dataclasses.replace(DEPLOYMENT, exercised=exercised, findings=findings)
            )
        finally:
            self.running -= 1

    def probe(self, served: FakeServed, prompts: SmokeSet, *, arm: str) -> Probe:
        assert prompts == SET
        self.asked.append(arm)
        exercised = served.deployment.exercised
        key = "declared" if exercised == DEPLOYMENT.declared else "deployed"
        default = BASELINE if arm == "baseline" else candidate()
        answers = self.answers.get(key, default) if arm == "candidate" else default
        return dataclasses.replace(answers, deployment=served.deployment)


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Stage:
    monkeypatch.setenv("HARNESS_BASELINES", str(tmp_path / "store"))
    return Stage(monkeypatch)


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    (tmp_path / "run").mkdir()
    return RunDirectory(tmp_path / "run")


@pytest.fixture(scope="session")
def inputs() -> BaselineInputs:
    return baselines.inputs_of(open_source("canary"), ENGINE, load_suite("canary"))


def a_folder(path: Path) -> tuple[Path, str]:
    """Return a folder to serve, with its digest."""
    path.mkdir(exist_ok=True)
    (path / "config.json").write_text(f'{{"name": "{path.name}"}}')
    return path, digest_folder(path)


def look(
    run: RunDirectory,
    inputs: BaselineInputs,
    *,
    engine: EngineSpec = ENGINE,
    key: str = "k",
    waived: frozenset[str] = frozenset(),
) -> None:
    suite = dataclasses.replace(load_suite("canary"), smoke=SET)
    folder, digest = a_folder(run.path.parent / "checkpoint")
    model, model_digest = a_folder(run.path.parent / "model")
    inputs = dataclasses.replace(inputs, model_digest=model_digest)
    order = arms.CandidateOrder(engine, folder, digest, suite, run.path, None, waived)
    of_baseline = arms.BaselineOrder(engine, model, suite, inputs)
    with arms.Measuring(of_baseline, IN_TURN) as measuring, arms.Candidate(order) as served:
        source = arms.SmokeBaseline(SET, None, measuring)
        arms.smoke(run, order, served, source, made_from={"key": key})


def test_the_baseline_is_asked_before_the_candidate_takes_the_device(
    stage: Stage, run: RunDirectory, inputs: BaselineInputs
) -> None:
    stage.hides = False
    look(run, inputs)
    assert stage.started == ["model deployed", "checkpoint deployed"]
    assert stage.asked == ["baseline", "candidate"]
    assert load(SmokeReport, run.path / "smoke.json").passed


def test_a_kept_answer_of_the_baseline_is_not_asked_for_again(
    stage: Stage, run: RunDirectory, inputs: BaselineInputs
) -> None:
    stage.hides = False
    look(run, inputs)
    stage.started.clear()
    look(run, inputs, key="another candidate")
    assert stage.started == ["checkpoint deployed"]


def test_a_finished_smoke_run_is_not_run_again(
    stage: Stage, run: RunDirectory, inputs: BaselineInputs
) -> None:
    look(run, inputs)
    stage.started.clear()
    look(run, inputs)
    assert stage.started == []


def test_declared_numerics_that_kernels_hide_are_smoked_in_emulation(
    stage: Stage, run: RunDirectory, inputs: BaselineInputs
) -> None:
    look(run, inputs)
    assert stage.started == ["model deployed", "checkpoint deployed", "checkpoint declared"]
    report = load(SmokeReport, run.path / "smoke_declared.json")
    assert (report.numerics, report.hidden, report.passed) == ("declared", (), True)
    assert load(SmokeReport, run.path / "smoke.json").hidden == ("inputs:nvfp4",)
    assert (run.path / "declared" / "deployment.json").is_file()
    kept = load(Deployment, run.path / "deployment.json")
    assert kept.exercised == WEIGHTS_ALONE


def test_salad_that_only_the_declared_numerics_show_ends_the_run(
    stage: Stage, run: RunDirectory, inputs: BaselineInputs
) -> None:
    stage.answers["declared"] = candidate(readings=readings(salad))
    with pytest.raises(RejectedError, match="smoke run of the declared numerics") as caught:
        look(run, inputs)
    assert caught.value.reason is ReasonCode.SMOKE_FAILED
    assert load(SmokeReport, run.path / "smoke.json").passed


def test_a_waived_smoke_check_does_not_keep_the_declared_numerics_from_being_smoked(
    stage: Stage, run: RunDirectory, inputs: BaselineInputs
) -> None:
    stage.answers["deployed"] = candidate(readings=readings(salad))
    look(run, inputs, waived=frozenset(CHECK_IDS))
    assert stage.started == ["model deployed", "checkpoint deployed", "checkpoint declared"]
    assert not load(SmokeReport, run.path / "smoke.json").passed
    assert load(SmokeReport, run.path / "smoke_declared.json").passed


@pytest.mark.usefixtures("stage")
def test_what_only_the_emulation_showed_is_refused_when_its_waiver_is_gone(
    run: RunDirectory, inputs: BaselineInputs, tmp_path: Path
) -> None:
    look(run, inputs)
    finding = Finding(
        id="tensor-not-taken",
        severity=Severity.ERROR,
        message="1 of 5",
        reason=ReasonCode.LOAD_MISMATCH,
        incident="an incident",
    )
    records = run.path / "declared" / "deployment.json"
    save(dataclasses.replace(DEPLOYMENT, findings=(finding,)), records)
    trial = load_trial(Request(model="canary", suite="canary", engine="vllm"), tmp_path)
    with pytest.raises(RejectedError, match="tensor-not-taken"):
        judging._refuse_emulated(trial, tmp_path, run)  # noqa: SLF001 - the rest needs scores


def test_numerics_that_cannot_be_emulated_are_left_unproven_and_tried_again(
    stage: Stage, run: RunDirectory, inputs: BaselineInputs
) -> None:
    stage.emulation_fails = True
    look(run, inputs)
    assert not (run.path / "smoke_declared.json").exists()
    stage.emulation_fails = False
    look(run, inputs)
    assert load(SmokeReport, run.path / "smoke_declared.json").passed


def test_a_run_of_the_declared_numerics_needs_no_second_one(
    stage: Stage, run: RunDirectory, inputs: BaselineInputs
) -> None:
    look(run, inputs, engine=dataclasses.replace(ENGINE, numerics="declared"))
    assert stage.started == ["model declared", "checkpoint declared"]
    assert not (run.path / "smoke_declared.json").exists()


def test_a_failed_smoke_run_ends_the_run_each_time_it_is_typed(
    stage: Stage, run: RunDirectory, inputs: BaselineInputs
) -> None:
    stage.answers["deployed"] = candidate(readings=readings(salad))
    for _ in range(2):
        with pytest.raises(RejectedError, match="smoke-nll"):
            look(run, inputs)
    assert stage.started == ["model deployed", "checkpoint deployed"]


def test_a_deployment_that_shows_a_fault_is_refused_before_it_is_asked(
    stage: Stage, run: RunDirectory, inputs: BaselineInputs
) -> None:
    stage.findings = (
        Finding(
            id="parameter-not-filled",
            severity=Severity.ERROR,
            message="1 of 5",
            reason=ReasonCode.LOAD_MISMATCH,
            incident="an incident",
        ),
    )
    with pytest.raises(RejectedError) as caught:
        look(run, inputs)
    assert caught.value.reason is ReasonCode.LOAD_MISMATCH
    assert stage.asked == ["baseline"]


@pytest.fixture
def order(inputs: BaselineInputs, tmp_path: Path) -> arms.BaselineOrder:
    suite = dataclasses.replace(load_suite("canary"), smoke=SET)
    model, digest = a_folder(tmp_path / "model")
    return arms.BaselineOrder(
        ENGINE, model, suite, dataclasses.replace(inputs, model_digest=digest)
    )


def test_answers_to_an_older_set_are_asked_for_again(
    stage: Stage, order: arms.BaselineOrder
) -> None:
    arms.probe_baseline(order, SET)
    folder = baselines.folder_of(order.inputs.key)
    assert arms.read_probe(folder, dataclasses.replace(SET, digest="6" * 64)) is None
    arms.probe_baseline(order, SET)
    assert stage.asked == ["baseline"]
