"""`harness judge`: two scored arms, ours or as another tool recorded them."""

import dataclasses
from pathlib import Path

from harness.artifacts import Arm, Suite, Verdict, to_json
from harness.baselines import read_rerun
from harness.cli import text
from harness.cli.console import Result
from harness.errors import SuiteError, UsageError
from harness.foreign import (
    Pairing,
    Recorded,
    is_recorded,
    pair_recorded,
    pair_with_own,
    read_recorded,
    suite_of_recorded,
    write_as,
)
from harness.gate import Subject, exit_code_of
from harness.gate import judge as judge_arms
from harness.recipe import Request, load_missing_evidence, suite_of
from harness.report import terminal_table
from harness.rundir import read_recipe
from harness.score import read_arm
from harness.score.arm import SCORECARD_FILE
from harness.stages import BASELINE_FOLDER


def judge(request: Request, baseline: Path, candidate: Path) -> Result:
    """Compare two arms."""
    if _is_recorded(baseline) or _is_recorded(candidate):
        verdict = _judge_recorded(request, baseline, candidate)
    else:
        arms = read_arm(baseline), read_arm(candidate)
        suite = _suite_of(arms[1].scorecard.suite, request)
        verdict = judge_arms(suite, *arms, verified=False, rerun=read_rerun(baseline))
    return Result(
        text=terminal_table(verdict) + "\n" + text.of_verdict(verdict),
        values=to_json(verdict),
        exit_code=exit_code_of(verdict.decision),
    )


def _is_recorded(path: Path) -> bool:
    """Return whether another tool's records lie there, and no scores of ours above them."""
    return not (path / SCORECARD_FILE).exists() and is_recorded(path)


def write_scores(run_dir: Path, layout: str | None, into: Path | None) -> Result:
    """Write the scores of a run's arms in the layout of another tool."""
    if layout is None or into is None:
        message = (
            "another tool's layout and its folder belong together. Type "
            f"`harness report {run_dir} --as lm-eval DIR`, or nel in the place of lm-eval."
        )
        raise UsageError(message)
    suite = read_recipe(run_dir).suite
    arms = {"baseline": read_arm(run_dir / BASELINE_FOLDER), "candidate": read_arm(run_dir)}
    files = [str(file) for file in write_as(layout, arms, suite, into)]
    return Result(text="\n".join(files), values={"files": files})


def _judge_recorded(request: Request, baseline: Path, candidate: Path) -> Verdict:
    """Judge arms of which another tool recorded at least one.

    No file of a model is at hand, so the verdict says that none was verified; an arm of ours still
    never ends GO without.
    """
    ours = [None if _is_recorded(path) else read_arm(path) for path in (baseline, candidate)]
    theirs = [read_recorded(p) if _is_recorded(p) else None for p in (baseline, candidate)]
    pairing, suite = _paired(request, theirs, ours, (baseline, candidate))
    own_candidate = ours[1]
    verdict = judge_arms(
        suite,
        pairing.baseline,
        pairing.candidate,
        verified=own_candidate is None,
        subject=Subject(
            pairing.candidate.scorecard.deployment.model,
            " ".join(pairing.candidate.scorecard.deployment.declared) or "unknown",
            pairing.baseline.scorecard.deployment.model,
        ),
        missing_evidence=load_missing_evidence(request),
    )
    return dataclasses.replace(
        verdict,
        scope=(*pairing.scope, *verdict.scope[1:]),
        checkpoint_digest=None,
        baseline_digest=None,
    )


def _paired(
    request: Request,
    theirs: list[Recorded | None],
    ours: list[Arm | None],
    places: tuple[Path, Path],
) -> tuple[Pairing, Suite]:
    baseline, candidate = theirs
    if baseline is not None and candidate is not None:
        suite = _suite_of_recorded(request, baseline, candidate)
        is_named = request.suite is not None
        return pair_recorded(baseline, candidate, suite, is_named=is_named), suite
    is_baseline = baseline is not None
    recorded, own = (baseline, ours[1]) if is_baseline else (candidate, ours[0])
    if recorded is None or own is None:
        message = "one of two arms is recorded by another tool, the other by harness"
        raise AssertionError(message)
    suite = _suite_of(own.scorecard.suite, request)
    place = places[1 if is_baseline else 0]
    return pair_with_own(recorded, own, suite, place=place, is_baseline=is_baseline), suite


def _suite_of_recorded(request: Request, baseline: Recorded, candidate: Recorded) -> Suite:
    """Return the suite that is named, else one of everything that was asked, with the margin.

    Raises:
        SuiteError: neither was typed: how much may be lost is for a person to say.
    """
    if request.suite is not None:
        return suite_of(request, request.suite)
    if request.margin is None:
        names = ", ".join(dict.fromkeys(task.name for task in baseline.tasks))
        message = (
            f"'{baseline.place}' says what was answered ({names}), and not how much may be lost. "
            "Type --margin 0.02 to allow 2 points in each task, or --suite FILE with a margin for "
            "each."
        )
        raise SuiteError(message)
    return suite_of_recorded(baseline, candidate, request.margin)


def _suite_of(scored: str, request: Request) -> Suite:
    """Return the suite that is named, else the shipped one that the arms say they answered."""
    try:
        return suite_of(request, request.suite or scored)
    except SuiteError as error:
        if request.suite:
            raise
        message = (
            f"the arms answered the suite '{scored}', which is none of those that ship with "
            "harness. Type --suite FILE with the suite's YAML file."
        )
        raise SuiteError(message) from error
