"""Artifacts of NeMo Evaluator 0.1 and 0.2: a harness's own output beside NeMo Evaluator's files.

Which harness ran, with which settings, stands in run_config.yml; results.yml shows that it came to
its end. Its answers are read as that harness wrote them (`nel_samples`, `lm_eval`).
eval_factory_metrics.json counts how answers ended, though not which.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.errors import IncomparableError, RunDirectoryError, UnreadableError
from harness.foreign.gaps import unseen
from harness.foreign.lm_eval import read_lm_eval
from harness.foreign.nel_bundle import TOOL, sha256_of_files
from harness.foreign.nel_samples import not_compared, read_samples_of, samples_in
from harness.foreign.recorded import Recorded, RecordedTask
from harness.reading import bounds, read_json_object, read_yaml_file

_CONFIG = "run_config.yml"
_RESULTS = "results.yml"
_METRICS = "eval_factory_metrics.json"
_LM_EVAL = "lm_evaluation_harness"
_PARTS: tuple[str, ...] = ("limit_samples", "downsampling_ratio")
"""Settings that leave out items of a task."""
_HOW_SENT = frozenset({"parallelism", "request_timeout", "max_retries", "limit_samples"})
"""Settings that change no answer, and the limit, of which `_left_out` speaks."""
_PLAIN = frozenset(
    {"caching", "endpoint", "response_stats", "request_logging", "response_logging"}
    | {"progress_tracking", "raise_client_errors"}
)
"""Interceptors that change neither a request nor an answer."""


def artifacts_in(path: Path) -> list[Path]:
    """Return the folders of artifacts in a folder: itself, or as the launcher lays them."""
    patterns = ("", "artifacts", "*", "*/artifacts")
    found = (folder for pattern in patterns for folder in _folders(path, pattern))
    return list(dict.fromkeys(folder for folder in found if (folder / _CONFIG).is_file()))


def _folders(path: Path, pattern: str) -> list[Path]:
    return sorted(path.glob(pattern)) if pattern and path.is_dir() else [path]


def read_artifacts(path: Path, folders: Sequence[Path]) -> Recorded:
    """Read an arm whose tasks lie in folders of artifacts.

    Raises:
        UnreadableError: a file is malformed.
        RunDirectoryError: a run did not come to its end, or kept no samples.
        IncomparableError: the folders are of several models or harnesses.
    """
    arms = [_read(folder) for folder in folders]
    first = arms[0]
    for what, values in (
        ("models", {arm.model for arm in arms}),
        ("harnesses", {arm.scorer for arm in arms}),
    ):
        if len(values) > 1:
            message = (
                f"'{path}' holds results of {len(values)} {what}: {', '.join(sorted(values))}. "
                "Name the folder of one."
            )
            raise IncomparableError(message)
    tasks = [task for arm in arms for task in arm.tasks]
    names = [task.name for task in tasks]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        message = f"'{path}' holds several runs of task '{twice}'. Name the folder of one."
        raise IncomparableError(message)
    return dataclasses.replace(
        first,
        place=str(path),
        runs=frozenset().union(*(arm.runs for arm in arms)),
        tasks=tuple(tasks),
        groups={name: members for arm in arms for name, members in arm.groups.items()},
        gaps=unseen(str(path), TOOL, endings=True),
        notes=tuple(note for arm in arms for note in arm.notes),
    )


def _read(folder: Path) -> Recorded:
    config = _mapping(read_yaml_file(folder / _CONFIG), folder / _CONFIG)
    harness = str(config.get("pkg_name") or config.get("framework_name") or "unknown")
    results = _results_of(folder)
    model = str(_within(config, "target", "api_endpoint").get("model_id") or "unknown")
    asked = _conditions(config, results)
    if harness == _LM_EVAL:
        own = read_lm_eval(folder)
        tasks, scorer, version, groups = own.tasks, own.scorer, own.version, own.groups
        notes, runs, parts = own.notes, own.runs, _PARTS[1:]  # lm-eval counts what a limit leaves
    else:
        tasks, scorer, version, groups = read_samples_of(folder, harness), harness, "", {}
        notes, runs, parts = (
            tuple(not_compared(folder, tasks)),
            frozenset({_run_of(folder)}),
            _PARTS,
        )
    cut = _num_cut(folder) if len(tasks) == 1 else None
    return Recorded(
        tool=f"{TOOL} ({harness})",
        scorer=scorer,
        scorer_version=version,
        version=str(_versions(results).get("nemo_evaluator") or "of a version not recorded"),
        place=str(folder),
        model=model,
        identity="",
        runs=runs,
        engine="a server that NeMo Evaluator asked",
        tasks=tuple(
            dataclasses.replace(
                task,
                conditions={**task.conditions, **asked},
                num_cut=cut,
                left_out=task.left_out or _left_out(task, config, parts),
            )
            for task in tasks
        ),
        groups=groups,
        gaps=(),
        notes=notes,
    )


def _run_of(folder: Path) -> str:
    """Return the hash of a run's answers and results, and of what no other run has.

    That is when it asked, in NeMo Evaluator's measurements; without them, what it was asked to do.
    """
    measured = folder / _METRICS
    results = [folder / _RESULTS, *sorted(folder.glob("*/byob_results.json"))]
    told = measured if measured.is_file() else folder / _CONFIG
    return sha256_of_files(*samples_in(folder), *filter(Path.is_file, results), told)


def _left_out(task: RecordedTask, config: Mapping[str, Any], parts: Sequence[str]) -> str:
    params = _within(config, "config", "params")
    said = {**params, **_within(params, "extra")}
    limits = [f"{name} {said[name]!r:.20}" for name in parts if said.get(name) is not None]
    number = task.num_items
    return f"{number} items alone were asked ({', '.join(limits)})" if limits else ""


def _results_of(folder: Path) -> Mapping[str, Any]:
    """Return what results.yml says; a benchmark of one's own may have its results alone.

    Raises:
        RunDirectoryError: there is none, so that the run did not come to its end.
    """
    file = folder / _RESULTS
    if file.is_file():
        return _mapping(read_yaml_file(file), file)
    if any(folder.glob("*/byob_results.json")):
        return {}
    message = (
        f"'{folder}' has no {_RESULTS}: the run of NeMo Evaluator did not come to its end. Run it "
        "again."
    )
    raise RunDirectoryError(message)


def _conditions(config: Mapping[str, Any], results: Mapping[str, Any]) -> dict[str, object]:
    params = _within(config, "config", "params")
    endpoint = _within(config, "target", "api_endpoint")
    extra = params.get("extra")
    found: dict[str, object] = {
        "NeMo Evaluator's task": _within(config, "config").get("type"),
        "NeMo Evaluator's command": config.get("command"),
        "the kind of endpoint": endpoint.get("type"),
        "what stands between (interceptors)": _interceptors(endpoint),
        "the harness's git_hash": results.get("git_hash"),
    }
    found |= {f"{name}'s version": v for name, v in _versions(results).items()}
    found |= {k: v for k, v in params.items() if k not in _HOW_SENT and k != "extra"}
    return found | (extra if isinstance(extra, dict) else {})


def _versions(results: Mapping[str, Any]) -> Mapping[str, Any]:
    return _within(results, "metadata", "versioning")


def _interceptors(endpoint: Mapping[str, Any]) -> list[object]:
    """Return what changes requests or answers on their way."""
    listed = _within(endpoint, "adapter_config").get("interceptors")
    found = [one for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []
    return [
        [one.get("name"), one.get("config")]
        for one in found
        if one.get("enabled", True) and str(one.get("name")) not in _PLAIN
    ]


def _num_cut(folder: Path) -> int | None:
    """Return how many answers ended at their budget, where NeMo Evaluator counted it."""
    file = folder / _METRICS
    if not file.is_file():
        return None
    values = read_json_object(file, most=bounds.CONFIG_BYTES, infinity=True)
    counts = _within(values, "response_stats").get("finish_reason")
    found = counts.get("length", 0) if isinstance(counts, dict) else None
    return found if isinstance(found, int) else None


def _within(values: Mapping[str, Any], *keys: str) -> Mapping[str, Any]:
    """Return the mapping that lies at `keys`; an empty one where there is none."""
    found: object = values
    for key in keys:
        found = found.get(key) if isinstance(found, dict) else None
    return found if isinstance(found, dict) else {}


def _mapping(value: object, file: Path) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise UnreadableError(file, "is no settings of NeMo Evaluator but another value")
    return {str(key): _named(inner) for key, inner in value.items()}


def _named(value: object) -> object:
    """Return a value whose mappings have texts as keys, where YAML may have anything."""
    if isinstance(value, dict):
        return {str(key): _named(inner) for key, inner in value.items()}
    return [_named(inner) for inner in value] if isinstance(value, list) else value
