"""What --plan prints: what becomes of the weights, what it costs, and what it can decide."""

from collections.abc import Mapping
from dataclasses import dataclass

from harness import score
from harness.artifacts import EngineSpec, KvFormat, ModuleGroup, QuantPlan, Suite, TaskSpec
from harness.engines import SIDECAR, Foretold, engines_for, read_demands
from harness.export import bits_per_weight, required_bytes
from harness.gate import joint_probability_of_go, plan_power, protocol_note
from harness.preflight.deployments_job import DeploymentsJob
from harness.preflight.engine import demands_of
from harness.preflight.estimate import estimate_times
from harness.preflight.gate_job import GateJob
from harness.preflight.job import Job
from harness.preflight.serving_time import declared_times
from harness.preflight.together import plan_arms
from harness.serve import foretell_served
from harness.stopwatch import TimeRange


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskPlan:
    """What one task can decide."""

    task: str
    tier: str
    items: int
    margin: float
    smallest_margin: float
    """Margin that a candidate without loss meets 4 times out of 5."""
    flip_rate: float | None
    """Assumed; None of a perplexity, whose documents all differ."""
    probability_of_go: float
    """For a candidate without loss."""
    published: str = ""
    """In what a published score was asked otherwise; empty where nothing is known."""
    form: str = ""
    """What is asked beside a margin, such as `keeps 99.00%, 14 clusters`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GatePlanSummary:
    """Everything that is known before a checkpoint of any origin is judged."""

    checkpoint: str
    scheme: str
    """As the checkpoint declares it."""
    checkpoint_bytes: int
    baseline: str
    engine: str
    foretold: tuple[Foretold, ...]
    """What becomes of its layers there, as far as the engine says before it is started."""
    arms: str
    """How the two arms share the machine, and why."""
    suite: str
    tasks: tuple[TaskPlan, ...]
    joint_probability_of_go: float
    """Of a candidate without loss, over all critical tasks together, and pooled."""
    pooled_margin: float | None = None
    """Of all items of all tasks."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DeploymentsPlanSummary:
    """Everything that is known before two deployments are compared."""

    candidate: str
    """With the engine and version that it says it is."""
    baseline: str
    checkpoint: str | None
    """Folder that the candidate is said to run."""
    not_observed: tuple[str, ...]
    """What nobody can see of a server that somebody else runs."""
    suite: str
    tasks: tuple[TaskPlan, ...]
    joint_probability_of_go: float
    """Of a candidate without loss, over all critical tasks together, and pooled."""
    pooled_margin: float | None = None
    """Of all items of all tasks."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PlanSummary:
    """Everything that is known before the run."""

    model: str
    model_type: str
    scheme: str
    kv_cache: str
    quantized: tuple[ModuleGroup, ...]
    excluded: tuple[ModuleGroup, ...]
    bits_per_weight: float
    source_bytes: int
    checkpoint_bytes: int
    calibration: str
    engine: str | None
    """What serves and scores it; None where that is not asked for."""
    foretold: tuple[Foretold, ...]
    """What becomes of its layers there, as far as the engine says before it is started."""
    arms: str | None
    """How the two arms share the machine, and why."""
    stage_seconds: Mapping[str, float]
    """Estimated wall-clock time of each stage: the middle of its range."""
    stage_ranges: Mapping[str, TimeRange]
    """From the least to the most that each stage will take."""
    unsaid: tuple[str, ...]
    """Stages of which nothing can be said: the machine is too busy to measure."""
    declared_times: float | None
    """Estimated time of the candidate's answers with `--numerics declared` over that with
    `deployed`; None where they are not asked for, or where the kernels are the same."""
    suite: str | None
    tasks: tuple[TaskPlan, ...]
    joint_probability_of_go: float | None
    """Of a candidate without loss, over all critical tasks together, and pooled."""
    pooled_margin: float | None = None
    """Of all items of all tasks."""
    loaded_by: tuple[str, ...] = ()
    """Engines that were seen to load what is made; the reference engine apart."""


def summarize(job: Job, *, scored: bool = True) -> PlanSummary:
    """Describe a job that has passed its checks; one that is not `scored` ends with verify."""
    recipe, plan, suite = job.recipe, job.plan, job.recipe.suite
    times = estimate_times(job, scored=scored)
    return PlanSummary(
        model=recipe.model,
        model_type=job.inventory.model_type,
        scheme=plan.scheme,
        kv_cache=_kv_cache(plan),
        quantized=plan.quantized_groups(),
        excluded=plan.excluded_groups(),
        bits_per_weight=bits_per_weight(plan),
        source_bytes=sum(header.num_bytes for header in job.source.tensors.values()),
        checkpoint_bytes=required_bytes(job.source, plan),
        calibration=(
            f"{recipe.calibration.data}: {job.extent.num_samples} samples, "
            f"{job.extent.num_tokens} tokens in {job.extent.num_batches} batches"
        ),
        engine=_engine(recipe.engine) if scored else None,
        foretold=foretell_served(recipe.engine, demands_of(plan)) if scored else (),
        arms=plan_arms(job).said() if scored else None,
        stage_seconds={stage: round(one.middle_s, 1) for stage, one in times.items()},
        stage_ranges={stage: one.rounded() for stage, one in times.items()},
        unsaid=tuple(stage for stage, one in times.items() if not one.can_be_said),
        declared_times=declared_times(job) if scored else None,
        suite=suite.name if scored else None,
        tasks=tuple(_task_plans(suite, recipe.baseline or recipe.model)) if scored else (),
        joint_probability_of_go=joint_probability_of_go(suite) if scored else None,
        pooled_margin=suite.pooled_margin if scored else None,
        loaded_by=engines_for(demands_of(plan)),
    )


def _kv_cache(plan: QuantPlan) -> str:
    """Return how keys and values are stored, and where engines are not told."""
    is_told = plan.declares_kv or plan.kv_cache == KvFormat.NONE
    return plan.kv_cache if is_told else f"{plan.kv_cache}, declared in {SIDECAR} alone"


def summarize_gate(job: GateJob) -> GatePlanSummary:
    """Describe a gate that has passed its checks."""
    suite = job.recipe.suite
    return GatePlanSummary(
        checkpoint=str(job.checkpoint.path),
        scheme=job.scheme,
        checkpoint_bytes=sum(header.num_bytes for header in job.checkpoint.tensors.values()),
        baseline=job.recipe.model,
        engine=_engine(job.recipe.engine),
        foretold=foretell_served(job.recipe.engine, read_demands(job.checkpoint)),
        arms=plan_arms(job).said(),
        suite=suite.name,
        tasks=tuple(_task_plans(suite, job.recipe.model)),
        joint_probability_of_go=joint_probability_of_go(suite),
        pooled_margin=suite.pooled_margin,
    )


def summarize_deployments(job: DeploymentsJob) -> DeploymentsPlanSummary:
    """Describe a gate of two deployments that has passed its checks."""
    trial, suite = job.recipe, job.recipe.suite
    return DeploymentsPlanSummary(
        candidate=f"{trial.candidate_at}, {trial.candidate_at.says}",
        baseline=f"{trial.baseline_at}, {trial.baseline_at.says}",
        checkpoint=trial.checkpoint,
        not_observed=tuple(
            f"{gap.reason}: {gap.message}" for gap in job.candidate.deployment.not_observed
        ),
        suite=suite.name,
        tasks=tuple(_task_plans(suite, trial.baseline_at.model)),
        joint_probability_of_go=joint_probability_of_go(suite),
        pooled_margin=suite.pooled_margin,
    )


def _engine(engine: EngineSpec) -> str:
    version = f" {engine.version}" if engine.version else ""
    return f"{engine.name}{version} on {engine.device}, {engine.numerics} arithmetic"


def _task_plans(suite: Suite, baseline: str) -> list[TaskPlan]:
    has_published = any(task.published for task in suite.tasks)
    budgets = score.answer_budgets(suite) if has_published else {}
    return [
        TaskPlan(
            task=power.task.name,
            tier=power.task.tier,
            items=power.task.items,
            margin=power.margin,
            smallest_margin=power.smallest_margin,
            flip_rate=None if power.task.relative_margin else power.task.flip_rate,
            probability_of_go=power.probability_of_go,
            form=_form(power.task),
            published=protocol_note(
                suite, power.task, baseline, budgets.get(power.task.name) or None
            ),
        )
        for power in plan_power(suite)
    ]


def _form(task: TaskSpec) -> str:
    """Say what a task asks for, where it is not a margin alone."""
    parts = [
        f"keeps {task.recovery:.2%}" if task.recovery else "",
        "lossless" if task.claim else "",
        f"{task.clusters} clusters" if task.cluster else "",
        f"perplexity, spread {task.spread:g}" if task.relative_margin else "",
        f"spread {task.spread:g}" if task.value_range else "",
    ]
    return ", ".join(part for part in parts if part)
