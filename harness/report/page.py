"""What the report says, ready to be set: every number already spelled, every list in order."""

from collections.abc import Iterable
from statistics import median
from typing import NamedTuple

from harness.artifacts import (
    ANY_COVERAGE,
    GO_WITH_WAIVERS,
    PLAIN,
    CalibrationStats,
    Check,
    Decision,
    Deployment,
    DeploymentsTrial,
    IntegrityReport,
    LengthVerdict,
    Recipe,
    RunRecord,
    Scale,
    Severity,
    Standing,
    TaskVerdict,
    Tier,
    Trial,
    Verdict,
    thin_experts,
)
from harness.report.words import percent, points, seconds, size


class Banner(NamedTuple):
    """The first thing that is read."""

    kind: str
    """CSS class: `go`, `waived`, `inconclusive`, `no-go` or `failed`."""
    word: str
    sentence: str
    codes: tuple[str, ...] = ()


class Tile(NamedTuple):
    """One number that matters, with its name."""

    name: str
    value: str
    note: str


class StageBar(NamedTuple):
    """How long one stage took."""

    name: str
    seconds: str
    share: int
    """Percent of the longest stage, for its bar."""


def banner_of(record: RunRecord) -> Banner:
    """Return the verdict, or why there is none."""
    if record.failure is not None:
        sentence = f"The run ended in stage '{record.failure.stage}' and gives no verdict."
        return Banner("failed", "FAILED", sentence, (record.failure.reason_code,))
    verdict = record.verdict
    if verdict is None:
        return Banner("failed", "NO VERDICT", "Nothing was judged.")
    sentence = verdict.summary.removeprefix(f"{verdict.title}: ")
    starts_with_a_name = sentence.split(" ")[0].rstrip(":") in {t.task for t in verdict.tasks}
    if not starts_with_a_name:
        sentence = sentence[:1].upper() + sentence[1:]
    kind = "waived" if verdict.title == GO_WITH_WAIVERS else verdict.decision.lower()
    return Banner(kind, verdict.title, sentence, verdict.reason_codes)


def tiles_of(record: RunRecord) -> list[Tile]:
    """Return the few numbers that a release manager asks for first."""
    tiles = []
    verdict, checkpoint, integrity = record.verdict, record.checkpoint, record.integrity
    if verdict is not None and verdict.tasks:
        tiles += _verdict_tiles(verdict)
    if integrity is not None:
        passed = sum(check.passed for check in integrity.checks)
        note = _errors_note(integrity, verdict)
        tiles.append(Tile("File checks passed", f"{passed} of {len(integrity.checks)}", note))
    if verdict is not None and verdict.length is not None:
        tiles.append(_length_tile(verdict.length))
    if verdict is not None and verdict.size is not None:
        smaller = f"{verdict.size.times_smaller:.1f} x"
        both = (size(verdict.size.candidate_bytes), size(verdict.size.baseline_bytes))
        tiles.append(Tile("Smaller", smaller, f"weight files {both[0]}, baseline {both[1]}"))
    if checkpoint is not None:
        bits = f"{checkpoint.bits_per_weight:.2f} bits per quantized weight"
        tiles.append(Tile("Checkpoint", size(checkpoint.num_bytes), bits))
    if record.stage_seconds:
        total = seconds(sum(record.stage_seconds.values()))
        tiles.append(Tile("Time", total, "all stages that ran"))
    return tiles


def _length_tile(length: LengthVerdict) -> Tile:
    note = f"{length.baseline:.1f} tokens became {length.candidate:.1f}, {length.standing} the band"
    if length.standing is Standing.UNCLEAR:
        note = f"{length.baseline:.1f} tokens became {length.candidate:.1f}; the band is undecided"
    return Tile("Answers' length", f"{length.ratio:.2f} x", note)


def _errors_note(integrity: IntegrityReport, verdict: Verdict | None) -> str:
    waived = {w.check for w in verdict.waived} if verdict else set()
    ids = [check.id for check in integrity.errors]
    num_waived = sum(check in waived for check in ids)
    errors = f"{len(ids) - num_waived} errors" if len(ids) > num_waived else "no errors"
    return f"{errors}, {num_waived} waived" if num_waived else errors


def _verdict_tiles(verdict: Verdict) -> list[Tile]:
    critical = [t for t in verdict.tasks if t.tier is Tier.CRITICAL]
    passed = sum(t.decision is Decision.GO for t in critical)
    shares = [t for t in verdict.tasks if t.scale is Scale.SHARE]
    lost, won = sum(t.num_lost for t in shares), sum(t.num_won for t in shares)
    again = ""
    if verdict.rerun_flip_rate is not None:
        again = f"; baseline against itself {percent(verdict.rerun_flip_rate)}"
    return [
        Tile(
            "Critical tasks GO",
            f"{passed} of {len(critical)}",
            f"{len(verdict.tasks) - len(critical)} advisory beside them",
        ),
        Tile("Pooled difference", points(verdict.pooled_difference), "points, over all items"),
        Tile("Answers that flipped", percent(verdict.flip_rate), f"{lost} lost, {won} won{again}"),
    ]


def critical_first(tasks: Iterable[TaskVerdict]) -> list[TaskVerdict]:
    """Return the tasks in the order in which they matter."""
    return sorted(tasks, key=lambda task: task.tier is Tier.ADVISORY)


def methods_of(verdict: Verdict | None) -> str:
    """Name what made the intervals."""
    tasks = verdict.tasks if verdict else ()
    return "; ".join(dict.fromkeys(task.method for task in tasks if task.method))


def sorted_checks(record: RunRecord) -> list[Check]:
    """Return the integrity checks: errors, then warnings, then what passed."""
    checks = record.integrity.checks if record.integrity else ()
    return sorted(checks, key=lambda c: (c.passed, c.severity is Severity.WARNING))


def coverage_note(recipe: Recipe | Trial, stats: CalibrationStats | None) -> str | None:
    """Say how many experts were reached, by how many tokens, and which saw too few."""
    if stats is None or not stats.coverage:
        return None
    wanted = recipe.calibration.coverage if isinstance(recipe, Recipe) else ANY_COVERAGE
    thin = thin_experts(stats.coverage, wanted)
    tokens = [count for layer in stats.coverage for count in layer.tokens]
    seen = sum(layer.num_observed for layer in stats.coverage)
    calls = sum(sum(layer.calls) for layer in stats.coverage)
    return (
        f"{seen:,} of {len(tokens):,} expert projections were reached, by {min(tokens):,} tokens "
        f"at least and {median(tokens):,.0f} at the median; {calls:,} linear calls of experts were "
        f"observed over {stats.num_samples:,} samples with {stats.num_tokens:,} tokens. "
        f"{thin}."
    )


def stages_of(record: RunRecord) -> list[StageBar]:
    """Return the stages that ran, with a bar for each."""
    longest = max(record.stage_seconds.values(), default=0.0) or 1.0
    return [
        StageBar(name, seconds(value), round(100 * value / longest))
        for name, value in record.stage_seconds.items()
    ]


def deployment_facts(deployment: Deployment | None) -> dict[str, str]:
    """Return what the candidate was served with, and what that computes."""
    if deployment is None:
        return {}
    facts = {
        "engine": f"{deployment.engine} {deployment.version}",
        "device": f"{deployment.device}, {deployment.dtype}",
        "tensor parallel": f"{deployment.tensor_parallel_size}",
        "kernels": ", ".join(f"{part} {name}" for part, name in sorted(deployment.kernels.items())),
        "declared": ", ".join(deployment.declared)
        or ("not known" if deployment.address else "unquantized"),
        "computed": deployment.computed,
        "arguments": " ".join(deployment.arguments),
    }
    loaded = deployment.loaded
    if loaded is not None:
        facts["loaded"] = (
            f"{loaded.num_taken:,} of {loaded.num_tensors:,} tensors taken, "
            f"{loaded.num_set_aside:,} set aside on purpose; "
            f"{loaded.num_filled:,} of {loaded.num_parameters:,} parameters filled"
        )
        if loaded.num_expert_scales:
            facts["experts' scales"] = (
                f"{loaded.num_own_expert_scales:,} of {loaded.num_expert_scales:,} are the "
                "kernels' as they are, the others are merged"
            )
    if deployment.log:
        facts["log"] = deployment.log
    return facts


def facts_of(record: RunRecord) -> dict[str, str]:
    """Return what was quantized, how, and with what."""
    recipe = record.recipe
    facts = {"model": recipe.model + (f" at {recipe.revision}" if recipe.revision else "")}
    if isinstance(recipe, Recipe):
        spec = recipe.calibration
        facts |= {
            "recipe": recipe.name,
            **({} if recipe.algorithm == PLAIN else {"algorithm": str(recipe.algorithm)}),
            "KV cache": recipe.kv_cache,
            "calibration": f"{spec.data}: up to {spec.size} samples of up to {spec.seq} tokens",
        }
    else:
        facts["checkpoint"] = recipe.checkpoint or "-"
    if isinstance(recipe, DeploymentsTrial):
        candidate, baseline = recipe.candidate_at, recipe.baseline_at
        facts |= {
            "candidate's deployment": f"{candidate}, {candidate.says}",
            "baseline's deployment": f"{baseline}, {baseline.says}",
        }
    facts |= {
        "engine": f"{recipe.engine.name} on {recipe.engine.device}, {recipe.engine.dtype}, "
        f"{recipe.engine.numerics} arithmetic",
        "suite": f"{recipe.suite.name} ({recipe.suite.digest[:12]})",
    }
    verdict = record.verdict
    if verdict is not None and verdict.baseline_digest is not None:
        facts["baseline"] = f"{verdict.baseline}, unquantized ({verdict.baseline_digest})"
    checkpoint = record.checkpoint
    if checkpoint is not None:
        facts |= {
            "checkpoint": checkpoint.directory,
            "scheme": checkpoint.scheme,
            "tensors": f"{checkpoint.num_tensors:,}",
            "quantized layers": f"{checkpoint.num_quantized:,}",
            "size": size(checkpoint.num_bytes),
            "digest": checkpoint.digest,
        }
    return facts
