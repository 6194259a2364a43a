"""Plain text for the terminal; every ending says what decided, where files are, what is next."""

from pathlib import Path
from typing import TYPE_CHECKING

from harness.artifacts import (
    Deployment,
    Failure,
    IntegrityReport,
    RunRecord,
    Scale,
    Scorecard,
    TaskScore,
    Verdict,
    to_json,
)
from harness.errors import ReasonCode
from harness.report import terminal_smoke
from harness.stopwatch import NOTHING, TimeRange

if TYPE_CHECKING:
    from harness.preflight import DeploymentsPlanSummary, GatePlanSummary, PlanSummary, TaskPlan
    from harness.runs import RunStatus

_MIB = 1 << 20
NO_ENGINE = "no vllm that harness knows ('harness formats' lists what loads what)"
_UNITS = (("h", 3600), ("min", 60), ("s", 1))
_UNSEEN = (ReasonCode.LOAD_NOT_RECONCILED, ReasonCode.KERNELS_UNKNOWN)
_MANY = 10
"""Of a unit, of which no parts are said."""


def of_plan(summary: "PlanSummary") -> str:
    """Describe a plan."""
    sizes = (
        f"  {summary.source_bytes / _MIB:.1f} MiB become {summary.checkpoint_bytes / _MIB:.1f} MiB;"
        f" quantized weights take {summary.bits_per_weight:.2f} bits each, scales included"
    )
    lines = [
        f"{summary.model} ({summary.model_type}) to {summary.scheme}, KV cache {summary.kv_cache}",
        sizes,
        f"  calibration: {summary.calibration}",
        *([f"  engine: {summary.engine}"] if summary.engine else []),
        *_foretold(summary),
        *([f"  arms: {summary.arms}"] if summary.arms else []),
        f"  loaded by: {', '.join(summary.loaded_by) or NO_ENGINE}",
        "",
        "quantized",
        *(f"  {g.count:>6} x {g.pattern}  {g.format}  (rule {g.rule})" for g in summary.quantized),
        "left as they are",
        *(f"  {g.count:>6} x {g.pattern}  ({g.rule})" for g in summary.excluded),
        "",
        "time, estimated",
        *(f"  {stage:<16} {_of_time(one)}" for stage, one in summary.stage_ranges.items()),
        f"  {'total':<16} {_of_time(sum(summary.stage_ranges.values(), NOTHING))}",
        *_declared(summary),
        *(["", *_decidable(summary)] if summary.tasks else []),
    ]
    return "\n".join(lines)


def _of_time(time: TimeRange) -> str:
    """Say a range of times, or why it says nothing."""
    if time.high_s < 1:
        return "under 1 s"
    low, high = _in_units(time.low_s), _in_units(time.high_s)
    if not time.can_be_said:
        busy = "cannot be said: the machine is busy"
        return f"{busy} (from {low}, left alone, to {high}, as busy as it is now)"
    if low == high:
        return low
    number, _, unit = low.partition(" ")
    return f"{number} to {high}" if high.endswith(f" {unit}") else f"{low} to {high}"


def _in_units(seconds: float) -> str:
    unit, size = next(one for one in _UNITS if seconds >= 2 * one[1] or one[1] == 1)
    number = seconds / size
    return f"{number:.0f} {unit}" if number >= _MANY else f"{number:.2g} {unit}"


def _declared(summary: "PlanSummary") -> list[str]:
    if summary.declared_times is None:
        return []
    times = f"{summary.declared_times:.1f} times"
    return [f"  --numerics declared is emulated here: answers take {times} those of deployed"]


def _foretold(summary: "PlanSummary | GatePlanSummary") -> list[str]:
    """Say which kernels the engine would take, and what they do not compute."""
    inputs = {"hidden": "; its inputs are not rounded as declared"}
    return [
        f"  {one.algorithm} {one.layers}: {one.kernel or f'{one.fate}, {one.why}'}"
        f"{inputs.get(one.inputs, '')}"
        for one in summary.foretold
    ]


def of_gate_plan(summary: "GatePlanSummary") -> str:
    """Describe a planned gate."""
    lines = [
        f"{summary.checkpoint} ({summary.scheme}, {summary.checkpoint_bytes / _MIB:.1f} MiB)",
        f"  compared with: {summary.baseline}",
        f"  engine: {summary.engine}",
        *_foretold(summary),
        f"  arms: {summary.arms}",
        "",
        *_decidable(summary),
    ]
    return "\n".join(lines)


def of_deployments_plan(summary: "DeploymentsPlanSummary") -> str:
    """Describe a planned gate of two deployments."""
    lines = [
        f"candidate: {summary.candidate}",
        f"baseline: {summary.baseline}",
        f"files: {summary.checkpoint or 'none, so that none are verified'}",
        *(f"  not seen, {one}" for one in summary.not_observed),
        "",
        *_decidable(summary),
    ]
    return "\n".join(lines)


def _decidable(summary: "PlanSummary | GatePlanSummary | DeploymentsPlanSummary") -> list[str]:
    head = ("task", "tier", "items", "margin", "reachable", "flips", "GO if lossless")
    joint, pooled = summary.joint_probability_of_go, summary.pooled_margin
    return [
        f"suite {summary.suite}: what each task can decide",
        "  {:<24} {:<9} {:>5} {:>7} {:>9} {:>6} {:>14}".format(*head),
        *(
            f"  {t.task:<24} {t.tier:<9} {t.items:>5} {t.margin:>7.1%} {t.smallest_margin:>9.1%} "
            f"{_flips(t):>6} {t.probability_of_go:>14.0%}" + (f"  {t.form}" if t.form else "")
            for t in summary.tasks
        ),
        *(f"  {t.task}: {t.published}" for t in summary.tasks if t.published),
        f"  a candidate without loss gets GO with probability {joint:.0%} over all critical tasks"
        + ("" if pooled is None else f", and pooled within {pooled:.1%}"),
    ]


def _flips(task: "TaskPlan") -> str:
    return "-" if task.flip_rate is None else f"{task.flip_rate:.1%}"


def of_ending(path: Path, record: RunRecord, table: str) -> str:
    """Describe how a run ended."""
    lines = [table, ""] if table else []
    smoke = terminal_smoke(record)
    lines += [smoke, ""] if smoke else []
    if record.failure is not None:
        failure = record.failure
        lines += [
            f"FAILED in {failure.stage} ({failure.reason_code}): {failure.message}",
            f"next: {_after(failure)}",
        ]
    elif record.verdict is not None:
        lines += [of_verdict(record.verdict), f"next: {_next_step(path, record)}"]
    if record.checkpoint is not None:
        checkpoint = record.checkpoint
        lines.append(
            f"checkpoint: {checkpoint.directory} ({checkpoint.num_bytes / _MIB:.1f} MiB, "
            f"{checkpoint.bits_per_weight:.2f} bits per quantized weight)"
        )
    is_go = record.verdict is not None and record.verdict.decision == "GO"
    if record.serve_command and is_go and record.failure is None:
        lines.append(f"serve: {record.serve_command}")
    lines.append(f"report: {path / 'report.html'}")
    return "\n".join(lines)


def of_deployment(deployment: Deployment) -> list[str]:
    """Describe what a deployment computes, and what it should not have done."""
    kernels = ", ".join(f"{part} {name}" for part, name in sorted(deployment.kernels.items()))
    return [
        f"  {deployment.engine} {deployment.version} on {deployment.device}, {deployment.dtype}",
        f"  kernels: {kernels or 'not recorded'}",
        f"  arithmetic computed: {deployment.computed}",
        *(f"  {f.severity} {f.id}: {f.message}" for f in deployment.findings),
        *(f"  not seen, {gap.reason}: {gap.message}" for gap in deployment.not_observed),
    ]


def of_verdict(verdict: Verdict) -> str:
    """Describe a verdict."""
    codes = ", ".join(verdict.reason_codes)
    scope = "\n".join(f"  {line}" for line in verdict.scope)
    waived = "".join(
        f"waived: {w.check}, by {w.approver} until {w.expires}: {w.reason}\n"
        for w in verdict.waived
    )
    return f"{verdict.summary}\n{waived}reason codes: {codes}\nscope:\n{scope}{_open(verdict)}"


def _open(verdict: Verdict) -> str:
    """Say what a reviewed waiver would have to name, where a check failed."""
    if not verdict.failed_checks:
        return ""
    failed = f"failed checks: {', '.join(verdict.failed_checks)}"
    return f"\n{failed}\n{digest_line(verdict.checkpoint_digest or 'unknown')}"


def digest_line(digest: str) -> str:
    """Say what a waiver of one of this checkpoint's checks would have to name."""
    return f"checkpoint digest, as a waiver names it: {digest}"


def _after(failure: Failure) -> str:
    """Say what helps: typing the command again does where the same may not happen twice."""
    if failure.retryable:
        return "type the same command again; finished stages are kept"
    return (
        "remove the cause, then type the same command again: finished stages are kept, and until "
        "then it ends the same way"
    )


def _next_step(path: Path, record: RunRecord) -> str:
    verdict = record.verdict
    match verdict.decision if verdict is not None else None:
        case "GO" if verdict is not None and verdict.waived:
            return f"read {path / 'report.html'} and who answers for what, then deploy"
        case "GO" if record.serve_command is None:
            return f"read {path / 'report.html'} and what it does not hold for, then release"
        case "GO":
            return f"read {path / 'report.html'}, then deploy with the line below"
        case "INCONCLUSIVE" if verdict is not None and verdict.reason_codes[0] in _UNSEEN:
            return (
                "--missing-evidence go lets the answers alone decide; the verdict then names what "
                "was not seen"
            )
        case "INCONCLUSIVE":
            return "harness e2e with --plan shows which margins these items can decide"
        case _:
            return f"read {path / 'report.html'}: what decided, and the flipped answers"


def summary_of(path: Path, record: RunRecord, exit_code: int) -> dict[str, object]:
    """Return a run's ending as JSON values."""
    verdict, failure = record.verdict, record.failure
    codes = verdict.reason_codes if verdict else (failure.reason_code,) if failure else ()
    return {
        "run_dir": str(path),
        "exit_code": exit_code,
        "decision": verdict.decision if verdict else None,
        "reason_codes": list(codes),
        "verdict": to_json(verdict),
        "failure": to_json(failure),
        "checkpoint": to_json(record.checkpoint),
        "serve_command": record.serve_command,
        "deployment": to_json(record.deployment),
        "smoke": to_json(record.smoke.checks) if record.smoke else None,
    }


def of_integrity(report: IntegrityReport, *, left_out: tuple[str, ...] = ()) -> str:
    """Describe what verification found.

    Args:
        report: the findings.
        left_out: options that would have asked more, with what they ask.
    """
    width = max(len(check.id) for check in report.checks)
    lines = []
    for check in report.checks:
        mark = "ok" if check.passed else check.severity.upper()
        lines.append(f"{mark:<8} {check.id:<{width}}  {check.message}")
        if not check.passed:
            lines += [f"         e.g. {example}" for example in check.examples]
            lines.append(f"         seen before: {check.incident}")
    lines += [f"not asked: {option}" for option in left_out]
    errors = len(report.errors)
    warnings = sum(not check.passed for check in report.checks) - errors
    lines.append(
        f"{report.checkpoint}: {errors} errors, {warnings} warnings in {len(report.checks)} checks"
        if errors or warnings
        else f"{report.checkpoint}: all {len(report.checks)} checks passed"
    )
    return "\n".join(lines)


def of_scorecard(card: Scorecard) -> str:
    """Describe one arm's scores."""
    return "\n".join(
        f"{t.task:<24} {t.metric:<12} {_scored(t)}  n={t.num_items}"
        + (f" x {t.repeats}" if t.repeats > 1 else "")
        + (f"  errors={t.num_errors}" if t.num_errors else "")
        for t in card.tasks
    )


def _scored(task: TaskScore) -> str:
    """Spell a score in its unit."""
    if task.scale is Scale.SHARE:
        return f"{task.value:>7.2%} +- {task.stderr:.2%}"
    unit = " bits a byte" if task.scale is Scale.BITS else ""
    return f"{task.value:>7.5g} +- {task.stderr:.2g}{unit}"


def of_status(path: Path, status: "RunStatus") -> str:
    """Describe how far a run is."""
    lines = [f"{path}: {status.recipe} of {status.model}, {status.ending}"]
    if status.running_process:
        lines.append(f"process {status.running_process} works in it now")
    for stage in status.stages:
        state = "done" if stage.finished else "not done"
        time = f"{stage.seconds:>8.1f} s" if stage.finished and stage.seconds is not None else ""
        lines.append(f"  {stage.stage:<16} {state:<9}{time}".rstrip())
    return "\n".join(lines)
