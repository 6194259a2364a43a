"""lm-eval's output: a file of results for each run, and beside it a file of samples for each task.

    DIR/<model>/results_<time>.json, samples_<task>_<time>.jsonl     --output_path DIR
    DIR/<name>_<time>.json, samples_<task>_<time>.jsonl              --output_path DIR/<name>.json

A folder may hold several runs. Of each task the latest one counts, as in lm-eval's own tools; the
verdict says so. A folder of several models is refused: it does not say which one is meant.
Read as of lm-eval 0.4.3 to 0.4.13; earlier ones keep no hashes of what was asked.
"""

import dataclasses
import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from harness.errors import IncomparableError, ReasonCode, RunDirectoryError, UnreadableError
from harness.foreign.gaps import unseen
from harness.foreign.lm_eval_conditions import conditions_of, directions_of
from harness.foreign.lm_eval_samples import SamplesFile, read_samples_file
from harness.foreign.recorded import (
    Exported,
    Recorded,
    RecordedTask,
    checkpoint_of,
    digest_of_told,
)
from harness.foreign.weights import as_they_are
from harness.reading import bounds, read_bytes, read_json_object

TOOL = "lm-eval"
_STAMP = re.compile(r"_(\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d(?:\.\d+)?)\.json$")
_SERVED = re.compile(r"completions|api|chat|nemo|openai|anthropic|sglang-generate|gguf|textsynth")
"""Kinds of models of lm-eval's behind an address, which says nothing of what answers there."""
_COUNTS = ("original", "effective")
_KEYS = ("results", "configs", "n-samples")
_DUST = 1e-6
"""By which a mean that is computed in another order may differ."""


class Run(NamedTuple):
    """One file of results."""

    path: Path
    stamp: str
    """The time in its name; empty where it has none."""
    values: dict[str, Any]

    def samples_of(self, task: str) -> Path:
        """Return where the samples of a task lie."""
        return self.path.parent / f"samples_{task}{'_' if self.stamp else ''}{self.stamp}.jsonl"


def is_lm_eval(path: Path) -> bool:
    """Return whether a folder or a file looks like lm-eval's output."""
    if path.is_file():
        return path.suffix == ".json" and _is_results(path)
    return bool(_results_in(path)) or any(_samples_in(path))


def read_lm_eval(path: Path) -> Recorded:
    """Read an arm that lm-eval scored.

    Args:
        path: a folder of its output, or one file of results.

    Raises:
        UnreadableError: a file is malformed, or beyond the bounds of any such.
        RunDirectoryError: samples are missing, or are not those of the results.
        IncomparableError: the folder holds several models, or items twice.
    """
    runs = [_load(path)] if path.is_file() else [_load(file) for file in _results_in(path)]
    if not runs:
        message = f"'{path}' holds samples of lm-eval and no results_*.json. Name the whole folder."
        raise RunDirectoryError(message)
    _refuse_several_models(path, runs)
    chosen = _latest(runs)
    tasks = tuple(_task(run, name) for name, run in chosen.items())
    if not tasks:
        message = f"'{path}' holds results of no task. Score again with --log_samples."
        raise RunDirectoryError(message)
    recorded = _recorded(path, chosen, tasks)
    return dataclasses.replace(recorded, notes=tuple(_passed_over(runs, chosen)))


def _passed_over(runs: Sequence[Run], chosen: Mapping[str, Run]) -> Iterator[str]:
    """Say of each task that was run several times which run counts."""
    for task, run in chosen.items():
        times = [one for one in runs if task in one.values["n-samples"]]
        if len(times) > 1:
            where = f"'{run.path.parent}'"
            yield f"{where} holds {len(times)} runs of {task}: the latest, {run.stamp}, was read"


def _results_in(folder: Path) -> list[Path]:
    files = [*sorted(folder.glob("*.json")), *sorted(folder.glob("*/*.json"))]
    return [file for file in files if file.is_file() and _is_results(file)]


def _is_results(file: Path) -> bool:
    return bool(_STAMP.search(file.name)) or file.name == "results.json"


def _samples_in(folder: Path) -> Iterator[Path]:
    for pattern in ("samples_*.jsonl", "*/samples_*.jsonl"):
        yield from folder.glob(pattern)


def _load(file: Path) -> Run:
    values = read_json_object(file, most=bounds.INDEX_BYTES, infinity=True)
    stamp = _STAMP.search(file.name)
    for key in _KEYS:
        if not isinstance(values.get(key), dict):
            message = (
                f"'{file}' is no file of results of lm-eval 0.4.3 or later: it has no '{key}'. "
                "Score again with such a one and --log_samples."
            )
            raise RunDirectoryError(message)
    return Run(file, stamp.group(1) if stamp else "", values)


def _refuse_several_models(path: Path, runs: Sequence[Run]) -> None:
    places: dict[tuple[str, str], Run] = {}
    for run in runs:
        places.setdefault((str(run.path.parent), str(run.values.get("model_name"))), run)
    if len(places) > 1:
        names = sorted(f"'{model}' in '{folder}'" for folder, model in places)
        message = (
            f"'{path}' holds results of {len(places)} models: {', '.join(names)}. Name the folder, "
            "or the file of results, of one."
        )
        raise IncomparableError(message)


def _latest(runs: Sequence[Run]) -> dict[str, Run]:
    """Return the latest run of each task, in the order in which tasks were first run."""
    chosen: dict[str, Run] = {}
    for run in sorted(runs, key=lambda run: run.stamp):
        chosen |= dict.fromkeys(run.values["n-samples"], run)
    return chosen


def _task(run: Run, name: str) -> RecordedTask:
    config = run.values["configs"].get(name)
    config = config if isinstance(config, dict) else {}
    file = run.samples_of(name)
    if not file.is_file():
        message = (
            f"'{run.path}' has scores of task '{name}' and no samples beside it ('{file.name}'): "
            "scores without answers cannot be paired. Score again with --log_samples."
        )
        raise RunDirectoryError(message)
    read = read_samples_file(file, config)
    _check_counts(run, name, file, read)
    _check_same_run(run, name, file, read)
    return RecordedTask(
        name=name,
        answers=read.answers,
        metrics=read.metrics,
        conditions=conditions_of(run.values, name, config, read.asked),
        chance=read.chance,
        higher_is_better=directions_of(run.values, name, config),
        left_out=_left_out(run, name),
    )


def _counts(run: Run, task: str) -> tuple[int, int]:
    """Return how many items a task has, and how many were asked.

    Raises:
        RunDirectoryError: the file does not say it.
    """
    counts = run.values["n-samples"][task]
    found = [counts.get(key) if isinstance(counts, dict) else None for key in _COUNTS]
    original, effective = found
    if not isinstance(original, int) or not isinstance(effective, int):
        message = (
            f"'{run.path}': n-samples of task '{task}' is {counts!r:.60}, not the numbers of items "
            "of the task and of those asked. Score again."
        )
        raise RunDirectoryError(message)
    return original, effective


def _check_counts(run: Run, task: str, file: Path, read: SamplesFile) -> None:
    asked = _counts(run, task)[1]
    if read.num_items != asked:
        message = (
            f"'{file}' has answers to {read.num_items} items, and '{run.path.name}' says that "
            f"{asked} were asked. Score again, or copy the whole file."
        )
        raise RunDirectoryError(message)


def _check_same_run(run: Run, task: str, file: Path, read: SamplesFile) -> None:
    """Refuse samples that are not those that the results were computed from.

    Raises:
        RunDirectoryError: a hash or a mean is another.
    """
    hashes = run.values.get("task_hashes")
    known = hashes.get(task) if isinstance(hashes, dict) else None
    if known is not None and known != read.digest:
        message = (
            f"'{file}' was changed, or is of another run: its items have the hash "
            f"{read.digest:.12}, and '{run.path.name}' says {known!s:.12}. Score again."
        )
        raise RunDirectoryError(message, reason=ReasonCode.EVIDENCE_CHANGED)
    scores = run.values["results"].get(task)
    for metric, mean in read.means.items():
        score = scores.get(f"{metric.name},{metric.filter}") if isinstance(scores, dict) else None
        if isinstance(score, int | float) and abs(score - mean) > _DUST:
            message = (
                f"'{file}' was changed, or is of another run: its {metric} is {mean:.4f} on "
                f"average, and '{run.path.name}' says {score:.4f}. Score again."
            )
            raise RunDirectoryError(message, reason=ReasonCode.EVIDENCE_CHANGED)


def _left_out(run: Run, task: str) -> str:
    original, effective = _counts(run, task)
    limit = _config(run).get("limit")
    if effective >= original and limit is None:
        return ""
    how = f"limit {limit:g}" if isinstance(limit, int | float) else "chosen by --samples"
    return f"{effective} of {original} items were asked ({how})" if effective < original else ""


def _config(run: Run) -> Mapping[str, Any]:
    config = run.values.get("config")
    return config if isinstance(config, dict) else {}


def _groups(place: Path, runs: Iterable[Run], tasks: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Return the tasks of each group whose tasks were all read, groups in it taken apart.

    Raises:
        UnreadableError: groups are in each other.
    """
    whole: dict[str, tuple[str, ...]] = {name: (name,) for name in tasks}
    listed: dict[str, list[str]] = {}
    for run in runs:
        said = run.values.get("group_subtasks")
        groups = said if isinstance(said, dict) else {}
        listed |= {k: [*map(str, v)] for k, v in groups.items() if isinstance(v, list)}
    listed = {name: members for name, members in listed.items() if name not in whole}
    try:
        order = list(TopologicalSorter(listed).static_order())
    except CycleError as error:
        names = ", ".join(error.args[1][:3])
        raise UnreadableError(place, f"has groups of tasks in each other: {names:.80}") from error
    for name in order:  # a group's members stand before it
        members = [whole.get(member, ()) for member in listed.get(name, ())]
        if members and all(members):
            whole[name] = tuple(dict.fromkeys(chain(*members)))
    return {name: whole[name] for name in listed if name in whole}


def _recorded(path: Path, chosen: Mapping[str, Run], tasks: tuple[RecordedTask, ...]) -> Recorded:
    last = max(chosen.values(), key=lambda run: run.stamp)
    config = _config(last)
    exported = _exported(last.values)
    kind = str(last.values.get("model_source") or config.get("model") or "unknown")
    named = str(last.values.get("model_name") or "")
    model = named or str(config.get("model_args") or "unknown")
    told = [kind, model, config.get("model_args"), config.get("model_sha")]
    is_loaded = exported.checkpoint != "" if exported else not _SERVED.search(kind)
    return Recorded(
        tool=TOOL,
        scorer=TOOL,
        version=str(last.values.get("lm_eval_version") or "unknown"),
        place=str(path),
        model=model,
        identity=digest_of_told(exported.checkpoint if exported else told) if is_loaded else "",
        loaded=as_they_are(named, config.get("model_args")) if is_loaded else "",
        runs=frozenset(_sha256(run.path) for run in chosen.values()),
        engine=kind,
        dtype=str(config.get("model_dtype") or "").removeprefix("torch."),
        device=str(config.get("device") or ""),
        tasks=tasks,
        groups=_groups(path, chosen.values(), chosen),
        gaps=unseen(str(path), TOOL, endings=True),
        exported=exported,
    )


def _exported(values: Mapping[str, Any]) -> Exported | None:
    """Return whose scores these are, where harness wrote them (`write_lm_eval`)."""
    own = values.get("harness")
    card = own.get("scorecard") if isinstance(own, dict) else None
    served = card.get("deployment") if isinstance(card, dict) else None
    return (
        Exported(digest_of_told(card), checkpoint_of(served)) if isinstance(served, dict) else None
    )


def _sha256(file: Path) -> str:
    return hashlib.sha256(read_bytes(file, most=bounds.INDEX_BYTES)).hexdigest()
