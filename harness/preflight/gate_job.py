"""Resolve and check `harness gate`: a checkpoint of any origin and what it is compared with."""

import dataclasses
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from harness import score
from harness.artifacts import Trial
from harness.baselines import check_writable
from harness.engines import Demands, read_demands
from harness.errors import ModelError
from harness.models import Source, open_source
from harness.preflight.asked import note_asked
from harness.preflight.budget import within_budget
from harness.preflight.engine import check_answerable, choose_engine, resolve_device
from harness.preflight.given import Baseline, check_baseline, open_baseline
from harness.preflight.job import check_questions, check_written, read_by
from harness.preflight.nel_tasks import check_has_address
from harness.preflight.problems import Problems
from harness.recipe import Request, load_trial
from harness.serve import check_served


@dataclass(frozen=True, kw_only=True, slots=True)
class GateJob:
    """A checkpoint that is ready to be verified, served and judged."""

    recipe: Trial
    checkpoint: Source
    baseline: Baseline
    scheme: str
    """As its configuration declares it."""


def preflight_gate(request: Request, checkpoint: Path, *, into: Path | None = None) -> GateJob:
    """Resolve and check the gate of `checkpoint`; `request.model` is the baseline.

    Args:
        request: what was typed.
        checkpoint: folder of the candidate.
        into: where the run will write.

    Raises:
        UsageError: everything that is wrong, with what to do about each.
    """
    problems = Problems()
    trial = problems.attempt(lambda: _with_device(load_trial(request, checkpoint)))
    candidate = problems.attempt(lambda: open_source(str(checkpoint)))
    baseline = problems.attempt(lambda: open_baseline(request.model, revision=request.revision))
    if trial is not None and candidate is not None:
        trial = problems.attempt(partial(_in_time, trial, request.budget, candidate))
    if trial is not None:
        trial = _examined(problems, trial)
    demands = problems.attempt(lambda: _demands(candidate)) if candidate is not None else None
    if trial is None or candidate is None or baseline is None or demands is None:
        problems.raise_any()
        raise AssertionError  # one of the attempts above has failed
    problems.attempt(lambda: check_written(into, [candidate.path, *read_by(baseline)]))
    if isinstance(baseline, Source):
        problems.attempt(check_writable)
        note_asked(problems, trial.suite, baseline)
    note_asked(problems, trial.suite, candidate)
    if isinstance(baseline, Source) and not problems.found:
        files = baseline.path, candidate.path
        problems.attempt(lambda: score.check_same_questions(*files, trial.suite))
    sized = baseline if isinstance(baseline, Source) else candidate
    engine = problems.attempt(lambda: choose_engine(trial.engine, sized))
    if engine is not None:
        problems.attempt(lambda: check_has_address(engine, trial.suite))
        problems.attempt(lambda: check_served(engine, demands))
        resolved = dataclasses.replace(trial, engine=engine)
        problems.attempt(lambda: check_baseline(baseline, candidate, resolved, is_its_model=False))
    problems.raise_any()
    return GateJob(
        recipe=dataclasses.replace(trial, engine=problems.demand(engine)),
        checkpoint=candidate,
        baseline=baseline,
        scheme=demands.scheme,
    )


def _in_time(trial: Trial, budget: str | None, source: Source) -> Trial:
    return dataclasses.replace(trial, suite=within_budget(trial, budget, source))


def _examined(problems: Problems, trial: Trial) -> Trial:
    suite = check_questions(problems, trial.suite, trial.waivers)
    problems.attempt(partial(check_answerable, trial.engine, suite))
    return dataclasses.replace(trial, suite=suite)


def _with_device(trial: Trial) -> Trial:
    engine = dataclasses.replace(trial.engine, device=resolve_device(trial.engine.device))
    return dataclasses.replace(trial, engine=engine)


def _demands(candidate: Source) -> Demands:
    demands = read_demands(candidate)
    if not demands.scheme and not demands.kv:
        message = (
            f"'{candidate.name}' declares no quantization: its config.json has no "
            "quantization_config and no hf_quant_config.json lies beside it. "
            "Name a checkpoint that is quantized, and the unquantized model with --baseline."
        )
        raise ModelError(message)
    return demands
