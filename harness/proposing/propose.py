"""Measure a baseline once, and write a suite that can be decided with it."""

import dataclasses
import os
import tempfile
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from pydantic import TypeAdapter, ValidationError

from harness import doors, pipeline, runs, score
from harness.arms import BaselineOrder, measure_baseline
from harness.artifacts import Arm, SmokeSet, Suite, TaskSpec
from harness.artifacts.limits import Name
from harness.baselines import read_rerun
from harness.errors import StageError, UsageError
from harness.gate import count_flips, joint_probability_of_go, variances_of
from harness.models import Source
from harness.preflight import GateJob, Job, preflight, preflight_baseline, preflight_gate
from harness.preflight.asked import positions_of
from harness.preflight.unquantized import open_unquantized
from harness.proposing.numbers import Measured, Proposed, propose_task, shown_truncation
from harness.proposing.writing import Reasons, draft, written
from harness.recipe import Request, load_smoke, suite_of
from harness.serve import serve
from harness.shipped import CANARY
from harness.verify import has_template

_SUFFIXES = (".yaml", ".yml")
"""Of a suite's file: by them a path is told from the name of a suite that ships."""
_ROUND = 64
_LONGEST = 1 << 17
"""Tokens of a request, where the model does not say how many it takes."""
_UNSEEN = 4096
"""Tokens of prompt and answer where a task's items are not here to be counted."""


class NewSuite(NamedTuple):
    """What was asked for."""

    request: Request
    """The baseline as its model, the engine, folders of own tasks, a format of a candidate."""
    names: tuple[str, ...]
    """Tasks, or folders of own ones."""
    out: Path
    items: int | None = None
    """Of each task at most."""
    chats: bool | None = None
    """Whether prompts are chats; None: where the model has a template."""
    candidate: Path | None = None
    """A quantized checkpoint that flips are measured on."""
    repeats: int = 1
    temperature: float = 0.0
    top_p: float = 1.0


class Proposal(NamedTuple):
    """What was written, and from what."""

    file: Path
    suite: Suite
    tasks: tuple[Proposed, ...]
    baseline_key: str


class _Asked(NamedTuple):
    """A suite that is ready to be measured, and why it is as it is."""

    suite: Suite
    source: Source
    items: tuple[str, ...]
    chance: tuple[str, ...]
    max_model_len: str


def propose(order: NewSuite) -> Proposal:
    """Measure a baseline and write the suite.

    Raises:
        UsageError: everything that is wrong with the tasks; the file is there already; what is to
            be compared cannot be.
        StageError: the model could not be scored, or a candidate not be made.
    """
    _check_typed(order)
    asked = _asked(order)
    with tempfile.TemporaryDirectory(prefix="harness-suite-") as folder:
        request = _request(order, asked.suite, Path(folder))
        job = preflight_baseline(request)
        compared = _compared(order, request, Path(folder) / "candidate")
        kept = measure_baseline(
            BaselineOrder(job.engine, job.source.path, job.suite, job.inputs, rerun_share=1.0)
        )
        baseline, again = score.read_arm(kept), read_rerun(kept)
        candidate = None if compared is None else _answers(compared, job.suite, Path(folder))
    measured = [_measured(spec, baseline, again, candidate) for spec in job.suite.tasks]
    tasks = _proposed(measured, job.suite)
    truncated, why = shown_truncation(
        [one.num_truncated / max(one.num_items, 1) for one in baseline.scorecard.tasks]
    )
    suite = dataclasses.replace(
        job.suite, tasks=tuple(one.spec for one in tasks), max_truncated=truncated
    )
    reasons = _reasons(order, asked, suite, kept.name, why)
    doors.write_atomically(order.out, written(suite, tasks, reasons, into=order.out))
    if suite_of(dataclasses.replace(request, suite=None), str(order.out)).digest != suite.digest:
        message = f"'{order.out}' does not say what was measured. This is a bug of harness."
        raise AssertionError(message)
    return Proposal(order.out, suite, tasks, kept.name)


def _check_typed(order: NewSuite) -> None:
    """Refuse a file that cannot be written or read again, and two candidates.

    Raises:
        UsageError: with what to type instead.
    """
    if order.out.suffix not in _SUFFIXES:
        message = (
            f"--out '{order.out}': the file of a suite ends in {' or '.join(_SUFFIXES)}. Name one "
            "that does."
        )
        raise UsageError(message)
    if not _is_name(order.out.stem):
        message = (
            f"--out '{order.out}': the suite is called like its file, and '{order.out.stem}' is no "
            "name. Use letters and digits, and '.', '_' and '-' behind the first; 64 at most."
        )
        raise UsageError(message)
    if order.out.exists():
        message = f"'{order.out}' is there already. Name another file with --out, or remove it."
        raise UsageError(message)
    doors.check_file(order.out)
    if order.candidate is not None and order.request.qformat is not None:
        message = (
            f"--candidate '{order.candidate}' and --qformat {order.request.qformat}: flips are "
            "measured on one candidate. Leave one of the two out."
        )
        raise UsageError(message)


def _is_name(text: str) -> bool:
    try:
        TypeAdapter(Name).validate_python(text)
    except ValidationError:
        return False
    return True


def _asked(order: NewSuite) -> _Asked:
    """Return the suite with all that changes a score, before anything is measured."""
    request, source = order.request, open_unquantized(order.request.model, order.request.revision)
    folders, names = _places(order)
    most = positions_of(source) or _LONGEST
    frame = Suite(
        name=order.out.stem,
        tasks=score.first_specs(names, folders),
        max_model_len=most,
        apply_chat_template=has_template(source.path) if order.chats is None else order.chats,
        seed=1234,
        batch_size=32,
        confidence=0.95,
        max_truncated=1.0,
        digest="",
        tasks_from=folders,
        task_code=request.task_code,
    )
    unmeasured = [dataclasses.replace(spec, chance=1.0, margin=0.9) for spec in frame.tasks]
    _refuse_mistakes(dataclasses.replace(frame, tasks=tuple(unmeasured)))
    outlines = score.outlines_of(names, frame, most=order.items)
    specs = tuple(one.spec for one in outlines)
    suite = dataclasses.replace(frame, tasks=_drawn(order, specs, frame))
    _refuse_mistakes(suite)
    room, why = _room(suite, source, most)
    suite = dataclasses.replace(suite, max_model_len=room, smoke=_smoke(suite, source, room))
    return _Asked(
        suite=suite,
        source=source,
        items=tuple(
            f"of {one.num_items} that there are"
            if one.num_items > one.spec.items
            else "all that there are"
            for one in outlines
        ),
        chance=tuple(one.chance_reason for one in outlines),
        max_model_len=why,
    )


def _refuse_mistakes(suite: Suite) -> None:
    found = score.mistakes_of(suite)
    if found:
        numbered = "\n".join(f"  {n}. {error}" for n, error in enumerate(found, start=1))
        message = f"{len(found)} mistakes in the tasks, nothing was measured:\n{numbered}"
        raise type(found[0])(str(found[0]) if len(found) == 1 else message)


def _places(order: NewSuite) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the folders of own tasks, and the names of all tasks.

    Raises:
        UsageError: nothing is named, or the home of a user who has none.
    """
    found = {name: doors.expanded(name) for name in order.names}
    # False for a name that is too long for a path.
    is_there = {name: os.path.isdir(path) for name, path in found.items()}  # noqa: PTH112
    named = {name: path.resolve() for name, path in found.items() if is_there[name]}
    typed = [doors.expanded(folder).resolve() for folder in order.request.tasks]
    folders = tuple(dict.fromkeys(map(str, [*typed, *named.values()])))
    inside = score.tasks_in([*map(str, named.values())]) if named else ()
    names = tuple(dict.fromkeys([*(n for n in order.names if n not in named), *inside]))
    if not names:
        message = "no task is named. Type --tasks A,B with names, or with a folder of own tasks."
        raise UsageError(message)
    return folders, names


def _drawn(order: NewSuite, specs: tuple[TaskSpec, ...], frame: Suite) -> tuple[TaskSpec, ...]:
    """Return the tasks with what was typed of repeats, where answers are generated."""
    if order.repeats == 1 and not order.temperature:
        return specs
    chosen = score.tasks_of_likelihoods(frame)  # nothing is drawn
    return tuple(
        spec
        if spec.name in chosen
        else dataclasses.replace(
            spec,
            repeats=order.repeats,
            temperature=order.temperature,
            top_p=order.top_p,
            item_sd=0.5,
            repeat_sd=0.5,
        )
        for spec in specs
    )


def _room(suite: Suite, source: Source, most: int) -> tuple[int, str]:
    """Return the tokens that prompt and answer need, and why."""
    lengths = score.lengths_of(suite, source.path)
    longest = max((one.longest for one in lengths), default=0)
    if len(lengths) < len(suite.tasks):
        longest = max(longest, _UNSEEN)
    room = min(-(-longest // _ROUND) * _ROUND, most)
    return room, f"the longest request takes {longest} tokens with its answer"


def _smoke(suite: Suite, source: Source, room: int) -> SmokeSet | None:
    if source.name == CANARY:
        return load_smoke(CANARY)
    general = load_smoke("general")
    fits = general.max_model_len <= room
    return general if fits and suite.apply_chat_template else None


def _request(order: NewSuite, suite: Suite, folder: Path) -> Request:
    """Return the request for a baseline of a draft that lies in `folder`."""
    path = folder / f"{order.out.stem}.yaml"
    path.write_text(draft(suite), encoding="utf-8")
    return dataclasses.replace(order.request, suite=str(path), tasks=(), baseline=None)


def _compared(order: NewSuite, request: Request, into: Path) -> Job | GateJob | None:
    """Return the candidate that will be made, or is there; None where none is asked for.

    Raises:
        UsageError: it cannot be made, or not be compared with the baseline.
    """
    if request.qformat is not None:
        return preflight(request, into=into)
    if order.candidate is not None:
        return preflight_gate(request, order.candidate, into=into)
    return None


def _answers(compared: Job | GateJob, suite: Suite, folder: Path) -> Arm:
    """Return what a candidate answers, made first where it is not there.

    Raises:
        StageError: it could not be made, or not be scored.
    """
    if isinstance(compared, Job):
        checkpoint = _made(compared, folder / "candidate")
    else:
        checkpoint = compared.checkpoint.path
    with serve(compared.recipe.engine, checkpoint, records=folder) as served:
        score.score(served, suite, arm="candidate", into=folder / "scores")
    return score.read_arm(folder / "scores")


def _made(job: Job, run_dir: Path) -> Path:
    _, record = runs.run_job(job, into=run_dir, work=pipeline.make_checkpoint)
    if record.failure is not None:
        message = f"no candidate could be made: {record.failure.message}"
        raise StageError(message, reason=record.failure.reason_code)
    return run_dir / "checkpoint"


def _measured(spec: TaskSpec, baseline: Arm, again: Arm | None, candidate: Arm | None) -> Measured:
    name = spec.name
    value = next(one.value for one in baseline.scorecard.tasks if one.task == name)
    others = candidate.samples.get(name, ()) if candidate else ()
    return Measured(
        spec=spec,
        accuracy=value,
        rerun=count_flips(baseline, again).get(name) if again and not spec.is_drawn else None,
        candidate=count_flips(baseline, candidate).get(name) if candidate else None,
        variances=variances_of(baseline.samples[name], others) if spec.repeats > 1 else None,
    )


def _proposed(measured: Sequence[Measured], suite: Suite) -> tuple[Proposed, ...]:
    """Propose each task; those that decide nothing leave more room to the others."""
    critical = len(measured)
    while True:
        tasks = tuple(propose_task(one, suite, num_critical=max(critical, 1)) for one in measured)
        left = sum(one.spec.tier == "critical" for one in tasks)
        if left >= critical:
            return tasks
        critical = left


def _reasons(order: NewSuite, asked: _Asked, suite: Suite, key: str, truncated: str) -> Reasons:
    chats = "the model has a chat template" if suite.apply_chat_template else "plain texts"
    return Reasons(
        head=tuple(_head(order, asked, suite, key)),
        max_model_len=asked.max_model_len,
        chats=chats if order.chats is None else "as typed",
        truncated=truncated,
        items=asked.items,
        chance=asked.chance,
    )


def _head(order: NewSuite, asked: _Asked, suite: Suite, key: str) -> Iterator[str]:
    today = datetime.now(UTC).date().isoformat()
    yield (
        f"Proposed by 'harness suite new' on {today} from {order.request.model} "
        f"({asked.source.digest:.12}), whose answers are kept as baseline {key[:12]}: a gate with "
        "this suite does not measure them again."
    )
    if any(task.tier == "critical" for task in suite.tasks):
        joint = joint_probability_of_go(suite)
        yield (
            f"A candidate without loss gets GO on all critical tasks {joint:.0%} of the time, if "
            "as many of its items flip as is said below."
        )
    else:
        yield "No task can decide: use more items, or tasks that the model answers better."
    yield (
        "Margins, tiers, flip rates and expected accuracies may be changed: the baseline stays "
        "good. Other items, shots, templates, data or lengths need another one."
    )
