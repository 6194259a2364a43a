"""The run as JUnit XML, which every CI shows: a test case a check, and one a task and metric.

A regression is a failure, a result that could not be decided is an error, and what was not run is
skipped. The last test case is the verdict itself, so that a run which is not GO is never green.
"""

import dataclasses
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from harness.artifacts import (
    Check,
    Decision,
    IntegrityReport,
    LengthVerdict,
    RunRecord,
    Severity,
    SizeVerdict,
    SpeedVerdict,
    Standing,
    TaskSpec,
    TaskVerdict,
    Tier,
    Verdict,
    WaivedCheck,
    write_atomically,
)
from harness.report.smoke import was_not_run
from harness.report.words import visible


class Problem(NamedTuple):
    """Why a case is not green."""

    kind: str
    """`failure`, `error` or `skipped`."""
    type: str
    message: str


class Case(NamedTuple):
    """One test case."""

    name: str
    problem: Problem | None = None
    numbers: Mapping[str, object] = MappingProxyType({})
    note: str = ""
    seconds: float | None = None


def write_junit(report: IntegrityReport, path: Path) -> None:
    """Write the checks of a checkpoint's files alone."""
    cases = [_check_case(check) for check in report.checks]
    write_atomically(path, junit_document({"integrity": cases}))


def write_no_findings(path: Path, why: str) -> None:
    """Write that a checkpoint's files were not verified, which is an error."""
    case = Case("integrity", Problem("error", "not-verified", why))
    write_atomically(path, junit_document({"integrity": [case]}))


def junit_xml(record: RunRecord) -> str:
    """Return the whole document."""
    waived = {w.check: w for w in record.verdict.waived} if record.verdict else {}
    suites = {
        "integrity": [_waive(case, waived) for case in _integrity_cases(record)],
        "smoke": [_waive(case, waived) for case in _smoke_cases(record)],
        "deployment": [_waive(case, waived) for case in _deployment_cases(record)],
        "tasks": list(_task_cases(record)),
        "costs": list(_cost_cases(record.verdict)),
        "verdict": [_verdict_case(record)],
    }
    return junit_document(suites)


def _waive(case: Case, waived: Mapping[str, WaivedCheck]) -> Case:
    """Return a case that failed and was waived as one that is skipped, with who answers for it."""
    waiver = waived.get(case.name.split(" [", maxsplit=1)[0])
    if waiver is None or case.problem is None or case.problem.kind != "failure":
        return case
    message = (
        f"waived by {waiver.approver} until {waiver.expires}: {waiver.reason}\n"
        f"{case.problem.message}"
    )
    return case._replace(problem=Problem("skipped", "waived", message))


def junit_document(suites: Mapping[str, list[Case]], *, name: str = "harness") -> str:
    """Return the cases of each suite as one document."""
    root = ET.Element("testsuites", name=name)
    for suite, cases in suites.items():
        _add_suite(root, f"harness.{suite}", cases)
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _add_suite(root: ET.Element, name: str, cases: list[Case]) -> None:
    kinds = [case.problem.kind for case in cases if case.problem]
    suite = ET.SubElement(
        root,
        "testsuite",
        name=name,
        tests=str(len(cases)),
        failures=str(kinds.count("failure")),
        errors=str(kinds.count("error")),
        skipped=str(kinds.count("skipped")),
    )
    for case in cases:
        element = ET.SubElement(suite, "testcase", classname=name, name=visible(case.name))
        if case.seconds is not None:
            element.set("time", f"{case.seconds:.2f}")
        if case.numbers:
            properties = ET.SubElement(element, "properties")
            for key, value in case.numbers.items():
                ET.SubElement(properties, "property", name=key, value=visible(str(value)))
        if case.problem:
            problem = case.problem
            text = visible(problem.message)
            inner = ET.SubElement(element, problem.kind, type=problem.type, message=text)
            inner.text = text
        if case.note:
            ET.SubElement(element, "system-out").text = visible(case.note)


def _integrity_cases(record: RunRecord) -> Iterator[Case]:
    if record.integrity is None:
        yield Case(
            "integrity", Problem("skipped", "not-run", "the checkpoint was not verified"), {}
        )
        return
    for check in record.integrity.checks:
        yield _check_case(check)


def _check_case(check: Check) -> Case:
    numbers: dict[str, object] = {"num_faulty": check.num_faulty, "severity": check.severity}
    if check.incident:
        numbers["incident"] = check.incident
    return Case(check.id, _check_problem(check), numbers, check.message)


def _smoke_cases(record: RunRecord) -> Iterator[Case]:
    for report in (record.smoke, record.smoke_declared):
        for check in report.checks if report else ():
            case = _check_case(check)
            if was_not_run(check):
                case = case._replace(problem=Problem("skipped", "not-run", check.message))
            yield case._replace(name=f"{check.id} [{report.numerics}]" if report else check.id)


def _check_problem(check: Check) -> Problem | None:
    if check.passed or check.severity is Severity.WARNING:
        return None
    examples = "".join(f"\n  {example}" for example in check.examples)
    return Problem("failure", "integrity-failed", f"{check.message}{examples}")


def _deployment_cases(record: RunRecord) -> Iterator[Case]:
    deployment = record.deployment
    if deployment is None:
        yield Case("deployment", Problem("skipped", "not-run", "nothing was served"))
        return
    numbers = {"engine": deployment.engine, "version": deployment.version}
    yield Case("deployment", None, numbers)
    for finding in deployment.findings:
        is_error = finding.severity is Severity.ERROR
        problem = Problem("failure", finding.reason, finding.message) if is_error else None
        yield Case(finding.id, problem, {}, finding.message)
    for reason in dict.fromkeys(gap.reason for gap in deployment.not_observed):
        said = "; ".join(gap.message for gap in deployment.not_observed if gap.reason is reason)
        yield Case(reason, Problem("skipped", reason, said), {}, said)


def _task_cases(record: RunRecord) -> Iterator[Case]:
    judged = {task.task: task for task in record.verdict.tasks} if record.verdict else {}
    for spec in record.recipe.suite.tasks:
        name = f"{spec.name} [{spec.metric}]"
        task = judged.get(spec.name)
        if task is None:
            yield Case(name, Problem("skipped", "not-run", "the task was not judged"))
        else:
            yield Case(name, _task_problem(task), _numbers(task, spec), task.message)


def _task_problem(task: TaskVerdict) -> Problem | None:
    if task.tier is Tier.ADVISORY or task.decision is Decision.GO:
        return None
    if task.baseline is None or task.candidate is None:
        return Problem("skipped", task.reason, task.message)
    kind = "failure" if task.decision is Decision.NO_GO else "error"
    return Problem(kind, task.reason, task.message)


def _numbers(task: TaskVerdict, spec: TaskSpec) -> dict[str, object]:
    numbers = {
        "tier": task.tier,
        "decision": task.decision,
        "baseline": task.baseline,
        "candidate": task.candidate,
        "difference": task.difference,
        "low": task.low,
        "high": task.high,
        "margin": task.margin,
        "num_items": task.num_items,
        "num_lost": task.num_lost,
        "num_won": task.num_won,
        "num_fewshot": spec.num_fewshot,
        "method": task.method,
        "num_clusters": task.num_clusters,
        "p_value": task.p_value,
        "recovery": task.recovery.observed if task.recovery else None,
        "recovery_low": task.recovery.low if task.recovery else None,
        "scale": task.scale if task.ratio else None,
        "ratio": task.ratio.observed if task.ratio else None,
        "ratio_low": task.ratio.low if task.ratio else None,
        "ratio_high": task.ratio.high if task.ratio else None,
        "ratio_allowed": task.ratio.allowed if task.ratio else None,
        "ratio_spread": task.ratio.spread if task.ratio else None,
        "rerun_flip_rate": task.rerun_flip_rate,
        "repeats": task.repeats if task.repeats > 1 else None,
    }
    for one in task.estimates:
        numbers[f"baseline {one.name}"] = one.baseline
        numbers[f"candidate {one.name}"] = one.candidate
    return _known(numbers)


def _known(numbers: Mapping[str, object]) -> dict[str, object]:
    return {key: value for key, value in numbers.items() if value is not None}


def _cost_cases(verdict: Verdict | None) -> Iterator[Case]:
    """Yield the lengths of each task's answers, the speed and the size, where they are known."""
    if verdict is None:
        return
    for task in verdict.tasks:
        if task.length is not None:
            yield _cost_case(f"length of {task.task}", task.length)
    if verdict.speed is not None and verdict.speed.why_not:
        problem = Problem("skipped", "not-compared", verdict.speed.message)
        yield Case("speed", problem, {}, verdict.speed.message)
    elif verdict.speed is not None:
        yield _cost_case("speed", verdict.speed)
    if verdict.size is not None:
        numbers = {name: value for name, value in _fields(verdict.size) if name != "message"}
        yield Case("size", None, numbers, verdict.size.message)


def _fields(cost: LengthVerdict | SpeedVerdict | SizeVerdict) -> list[tuple[str, object]]:
    return [(field.name, getattr(cost, field.name)) for field in dataclasses.fields(cost)]


def _cost_case(name: str, cost: LengthVerdict | SpeedVerdict) -> Case:
    """Return a case that fails where it gates and is not within its band."""
    problem = None
    if cost.tier is Tier.CRITICAL and cost.standing is not Standing.WITHIN:
        kind = "failure" if cost.standing is Standing.BEYOND else "error"
        problem = Problem(kind, cost.reason, cost.message)
    numbers = {k: v for k, v in _fields(cost) if k not in {"message", "why_not"}}
    return Case(name, problem, _known(numbers), cost.message)


def _verdict_case(record: RunRecord) -> Case:
    if record.failure is not None:
        failure = record.failure
        message = f"{failure.stage}: {failure.message}"
        return Case("verdict", Problem("error", failure.reason_code, message))
    verdict = record.verdict
    if verdict is None:
        return Case("verdict", Problem("skipped", "not-run", "nothing was judged"))
    numbers = {
        "decision": verdict.title,
        "reason_codes": " ".join(verdict.reason_codes),
        "flip_rate": verdict.flip_rate,
        "pooled_difference": verdict.pooled_difference,
        "pooled_p_value": verdict.pooled.p_value if verdict.pooled else None,
        "rerun_flip_rate": verdict.rerun_flip_rate,
        "baseline": verdict.baseline or None,
        "baseline_digest": verdict.baseline_digest,
        "checkpoint_digest": verdict.checkpoint_digest,
    }
    known = {key: value for key, value in numbers.items() if value is not None}
    kinds = {Decision.NO_GO: "failure", Decision.INCONCLUSIVE: "error"}
    problem = None
    if verdict.decision in kinds:
        problem = Problem(kinds[verdict.decision], verdict.reason_codes[0], verdict.summary)
    return Case("verdict", problem, known, verdict.summary)
