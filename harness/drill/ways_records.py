"""Ways that edit what a run has written down, or leave reports of an earlier run behind."""

import re
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from harness.artifacts import Decision, read_samples, write_samples
from harness.drill.scene import (
    Ending,
    Scene,
    edit,
    ended,
)
from harness.drill.way import MODEL, Way, forget
from harness.errors import ExitCode
from harness.runs import read_run
from harness.stages import (
    BASELINE,
    BASELINE_FOLDER,
    CANDIDATE,
    EXPORT,
    SMOKE,
    VERIFY,
)


def _edited(file: str, change: Callable[[Any], object], *, mend: bool) -> Callable[[Scene], Ending]:
    def way(scene: Scene) -> Ending:
        run = scene.finished()
        edit(run / file, change, mend=mend)
        return scene.again(run)

    return way


def _failed_check_passed(values: Any) -> None:  # noqa: ANN401 - JSON
    values["checks"][0] |= {"passed": not values["checks"][0]["passed"]}


def _margin_widened(scene: Scene) -> Ending:
    run = scene.finished()
    recipe = run / "recipe.yaml"
    text = recipe.read_text(encoding="utf-8")
    recipe.write_text(re.sub(r"\bmargin: 0\.\d+", "margin: 0.9", text), encoding="utf-8")
    return scene.looked_at(run)


def _verdict_turned(scene: Scene) -> Ending:
    run = scene.finished()
    edit(run / "verdict.json", lambda v: v.update(summary="GO: all is well."), mend=True)
    return scene.looked_at(run)


def _baselines_scores_as_candidates(scene: Scene) -> Ending:
    run = scene.finished()

    def strike() -> None:
        arm = run / BASELINE_FOLDER
        shutil.copytree(arm / "samples", run / "samples", dirs_exist_ok=True)
        shutil.copy(arm / "scorecard.json", run / CANDIDATE.file)

    return scene.again(run, after={BASELINE: strike})


def _scores_copied_afterwards(scene: Scene) -> Ending:
    run = scene.finished()
    arm = run / BASELINE_FOLDER
    shutil.copytree(arm / "samples", run / "samples", dirs_exist_ok=True)
    shutil.copy(arm / "scorecard.json", run / CANDIDATE.file)
    return scene.looked_at(run)


def _answers_mended(scene: Scene) -> Ending:
    run = scene.finished()
    path = next(iter(sorted((run / "samples").glob("*.jsonl"))))

    def strike() -> None:
        samples = read_samples(path)
        write_samples([*samples[1:], samples[0]], path)

    return scene.again(run, after={CANDIDATE: strike})


def _report_of_an_interrupted_run(scene: Scene) -> Ending:
    """Interrupt a run in the directory of a GO; what counts is what CI finds there."""
    run = scene.finished()

    def strike() -> None:
        raise KeyboardInterrupt

    with suppress(KeyboardInterrupt):
        scene.again(run, before={VERIFY: strike})
    return _left_behind(run) or ended(read_run(run))


def _left_behind(run: Path) -> Ending | None:
    """Return a GO where that of an earlier run is still what lies in a run directory."""
    junit = (run / "junit.xml").read_text(encoding="utf-8")
    if (run / "verdict.json").exists() or "<error" not in junit:
        return Ending(ExitCode.GO, Decision.GO, (), "reports of an earlier run were left behind")
    return None


def _report_of_a_refused_run(scene: Scene) -> Ending:
    """Delete the weights of a checkpoint that got GO, and gate it again in the same directory."""
    place, run = scene.good(), scene.finished()
    (place / "model.safetensors").unlink()
    ending = scene.gate(place, MODEL, run)
    return _left_behind(run) or ending


def _ranges_changed(scene: Scene) -> Ending:
    run = scene.finished()
    forget(run, EXPORT)
    content = bytearray((run / "calibration.safetensors").read_bytes())
    content[-1] ^= 1
    (run / "calibration.safetensors").write_bytes(content)
    return scene.again(run)


WAYS: tuple[Way, ...] = (
    Way(
        name="check-set-to-passed",
        what="a check in integrity.json is turned round",
        go=_edited(VERIFY.file, _failed_check_passed, mend=False),
        cause="evidence-changed .*integrity.json' was changed",
    ),
    Way(
        name="check-set-to-passed-and-digest-mended",
        what="the same, and its own digest is made to fit",
        go=_edited(VERIFY.file, _failed_check_passed, mend=True),
        cause="evidence-changed .*integrity.json' is not the one",
    ),
    Way(
        name="smoke-turned",
        what="a check in smoke.json is turned round, and its own digest made to fit",
        go=_edited(SMOKE.file, _failed_check_passed, mend=True),
        cause="evidence-changed .*smoke.json' is not the one",
    ),
    Way(
        name="exported-digest-replaced",
        what="checkpoint.json names another digest, and its own is made to fit",
        go=_edited(EXPORT.file, lambda v: v.update(digest="0" * 64), mend=True),
        cause="evidence-changed .*checkpoint.json' is not the one",
    ),
    Way(
        name="ranges-changed-before-export",
        what="a bit of calibration.safetensors is changed before the export is done again",
        go=_ranges_changed,
        cause="evidence-changed .*calibration.safetensors' was changed",
    ),
    Way(
        name="baselines-scores-as-candidates",
        what="the baseline's scores are copied over the candidate's before the judge",
        go=_baselines_scores_as_candidates,
        cause="evidence-changed .*was exchanged between score candidate and the judge",
    ),
    Way(
        name="scores-copied-afterwards",
        what="the same after the verdict; status and report are asked",
        go=_scores_copied_afterwards,
        cause="evidence-changed .*scorecard.json",
    ),
    Way(
        name="answers-reordered",
        what="the candidate's answers are put in another order before the judge",
        go=_answers_mended,
        cause="evidence-changed .*is not the file that was scored",
    ),
    Way(
        name="margin-widened",
        what="a margin in recipe.yaml is widened after the verdict",
        go=_margin_widened,
        cause="evidence-changed .*recipe.yaml' was changed",
    ),
    Way(
        name="verdict-edited",
        what="verdict.json is edited, and its own digest made to fit",
        go=_verdict_turned,
        cause="evidence-changed .*verdict.json' is not the",
    ),
    Way(
        name="reports-of-an-interrupted-run",
        what="a run is interrupted in the directory of a GO, whose reports lie there",
        go=_report_of_an_interrupted_run,
        cause="interrupted",
    ),
    Way(
        name="reports-of-a-refused-run",
        what="a gate is refused, for its weights are gone, in the directory of a GO",
        go=_report_of_a_refused_run,
        cause="bad-model",
    ),
)
