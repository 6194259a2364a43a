"""Attacks that edit what a run has written down, or leave reports of an earlier run behind."""

import re
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from harness.artifacts import Decision, read_samples, write_samples
from harness.drill.attack import Attacks, Tamper, forget
from harness.drill.attempt import MODEL
from harness.drill.sandbox import (
    Ending,
    Sandbox,
    edit,
    ended,
)
from harness.errors import ExitCode
from harness.runs import read_run
from harness.stages import (
    BASELINE_FOLDER,
    CANDIDATE,
    EXPORT,
    SMOKE,
    VERIFY,
)


def _edited(file: str, change: Callable[[Any], object], *, mend: bool) -> Tamper:
    def tamper(sandbox: Sandbox) -> Ending:
        run = sandbox.finished()
        edit(run / file, change, mend=mend)
        return sandbox.again(run)

    return tamper


def _failed_check_passed(values: Any) -> None:  # noqa: ANN401 - JSON
    values["checks"][0] |= {"passed": not values["checks"][0]["passed"]}


def _left_behind(run: Path) -> Ending | None:
    """Return a GO where that of an earlier run is still what lies in a run directory."""
    junit = (run / "junit.xml").read_text(encoding="utf-8")
    if (run / "verdict.json").exists() or "<error" not in junit:
        return Ending(ExitCode.GO, Decision.GO, (), "reports of an earlier run were left behind")
    return None


attack = Attacks()


attack(
    "a check in integrity.json is turned round",
    "evidence-changed .*integrity.json' was changed",
    name="check-set-to-passed",
)(_edited(VERIFY.file, _failed_check_passed, mend=False))


attack(
    "the same, and its own digest is made to fit",
    "evidence-changed .*integrity.json' is not the one",
    name="check-set-to-passed-and-digest-mended",
)(_edited(VERIFY.file, _failed_check_passed, mend=True))


attack(
    "a check in smoke.json is turned round, and its own digest made to fit",
    "evidence-changed .*smoke.json' is not the one",
    name="smoke-turned",
)(_edited(SMOKE.file, _failed_check_passed, mend=True))


attack(
    "checkpoint.json names another digest, and its own is made to fit",
    "evidence-changed .*checkpoint.json' is not the one",
    name="exported-digest-replaced",
)(_edited(EXPORT.file, lambda v: v.update(digest="0" * 64), mend=True))


@attack(
    "a bit of calibration.safetensors is changed before the export is done again",
    "evidence-changed .*calibration.safetensors' was changed",
)
def _ranges_changed_before_export(sandbox: Sandbox) -> Ending:
    run = sandbox.finished()
    forget(run, EXPORT)
    content = bytearray((run / "calibration.safetensors").read_bytes())
    content[-1] ^= 1
    (run / "calibration.safetensors").write_bytes(content)
    return sandbox.again(run)


@attack(
    "the baseline's scores are copied over the candidate's before the judge",
    "evidence-changed .*was exchanged between score candidate and the judge",
)
def _baselines_scores_as_candidates(sandbox: Sandbox) -> Ending:
    run = sandbox.finished()

    def strike() -> None:
        arm = run / BASELINE_FOLDER
        shutil.copytree(arm / "samples", run / "samples", dirs_exist_ok=True)
        shutil.copy(arm / "scorecard.json", run / CANDIDATE.file)

    return sandbox.again(run, after={CANDIDATE: strike})


@attack(
    "the same after the verdict; status and report are asked", "evidence-changed .*scorecard.json"
)
def _scores_copied_afterwards(sandbox: Sandbox) -> Ending:
    run = sandbox.finished()
    arm = run / BASELINE_FOLDER
    shutil.copytree(arm / "samples", run / "samples", dirs_exist_ok=True)
    shutil.copy(arm / "scorecard.json", run / CANDIDATE.file)
    return sandbox.looked_at(run)


@attack(
    "the candidate's answers are put in another order before the judge",
    "evidence-changed .*is not the file that was scored",
)
def _answers_reordered(sandbox: Sandbox) -> Ending:
    run = sandbox.finished()
    path = next(iter(sorted((run / "samples").glob("*.jsonl"))))

    def strike() -> None:
        samples = read_samples(path)
        write_samples([*samples[1:], samples[0]], path)

    return sandbox.again(run, after={CANDIDATE: strike})


@attack(
    "a margin in recipe.yaml is widened after the verdict",
    "evidence-changed .*recipe.yaml' was changed",
)
def _margin_widened(sandbox: Sandbox) -> Ending:
    run = sandbox.finished()
    recipe = run / "recipe.yaml"
    text = recipe.read_text(encoding="utf-8")
    recipe.write_text(re.sub(r"\bmargin: 0\.\d+", "margin: 0.9", text), encoding="utf-8")
    return sandbox.looked_at(run)


@attack(
    "verdict.json is edited, and its own digest made to fit",
    "evidence-changed .*verdict.json' is not the",
)
def _verdict_edited(sandbox: Sandbox) -> Ending:
    run = sandbox.finished()
    edit(run / "verdict.json", lambda v: v.update(summary="GO: all is well."), mend=True)
    return sandbox.looked_at(run)


@attack("a run is interrupted in the directory of a GO, whose reports lie there", "interrupted")
def _reports_of_an_interrupted_run(sandbox: Sandbox) -> Ending:
    """Interrupt a run in the directory of a GO; what counts is what CI finds there."""
    run = sandbox.finished()

    def strike() -> None:
        raise KeyboardInterrupt

    with suppress(KeyboardInterrupt):
        sandbox.again(run, before={VERIFY: strike})
    return _left_behind(run) or ended(read_run(run))


@attack("a gate is refused, for its weights are gone, in the directory of a GO", "bad-model")
def _reports_of_a_refused_run(sandbox: Sandbox) -> Ending:
    """Delete the weights of a checkpoint that got GO, and gate it again in the same directory."""
    place, run = sandbox.good(), sandbox.finished()
    (place / "model.safetensors").unlink()
    ending = sandbox.gate(place, MODEL, run)
    return _left_behind(run) or ending


ATTACKS = tuple(attack.declared)
