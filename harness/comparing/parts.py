"""What each part of a run is: a value that is the same in two runs where the part is.

None where a run does not record it: then nobody says whether it differs.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from harness.artifacts import (
    Arm,
    Check,
    Difference,
    IntegrityReport,
    Part,
    Recipe,
    SmokeReport,
    Suite,
    digest_of,
    to_json,
)
from harness.comparing.fields import field_differences, rule_differences
from harness.comparing.sides import Side
from harness.errors import HarnessError
from harness.installed import ENGINE, HARNESS
from harness.models import digest_folder, sha256_of
from harness.stages import CALIBRATE, CANDIDATE, EXPORT, SMOKE, SMOKE_DECLARED, VERIFY

_Described = Mapping[str, Any] | None
"""What is said of a part, by name; a name with None is not recorded."""
_JUDGES_TASKS = frozenset(
    """
    tier margin flip_rate chance recovery relative_margin claim clusters design_effect spread
    baseline_accuracy length item_sd repeat_sd published
    """.split()  # noqa: SIM905 -- a name a line would be a screen
)
"""Fields of a task that change verdicts and no score."""
_JUDGES_SUITES = frozenset(
    "confidence max_truncated max_rise pooled_margin length speed smoke".split()  # noqa: SIM905
)
_JUDGES_RUNS = ("skip_verify", "waivers", "missing_evidence", "end_early")
_PLACES = ("--port", "--host", "--api-key", "--served-model-name", "--uds", "--model")
_MAKES = ("rules", "exclude", "kv_cache", "wording", "matching", "expert_scales", "algorithm")
_STATS_FILE = CALIBRATE.outputs[0]


def differences_of(a: Side, b: Side) -> list[Difference]:
    """Return all that both sides record and that differs, part by part."""
    found: list[Difference] = []
    for part, describe in _DESCRIBED.items():
        left, right = _recorded_by_both(describe(a), describe(b))
        if part is Part.RECIPE and left:
            found += rule_differences(left.pop("rules"), right.pop("rules"))
        found += field_differences(part, left, right)
    return found


def differing(a: Side, b: Side) -> dict[Part, bool | None]:
    """Return of each part whether it differs; None where that is not known."""
    found: dict[Part, bool | None] = {}
    for part, describe in _DESCRIBED.items():
        left, right = _recorded_by_both(describe(a), describe(b))
        found[part] = digest_of(left) != digest_of(right) if left else None
    for part, whole in _WHOLE.items():
        one, other = whole(a), whole(b)
        found[part] = None if one is None or other is None else digest_of(one) != digest_of(other)
    return found


def _recorded_by_both(a: _Described, b: _Described) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what both say; what is None in one of them is not recorded there."""
    left, right = dict(a or {}), dict(b or {})
    names = [name for name in left if left[name] is not None and right.get(name) is not None]
    return {name: left[name] for name in names}, {name: right[name] for name in names}


def files_of(side: Side) -> Path | str:
    """Return the folder of the checkpoint as it answered, or why there is none."""
    folder, recorded = side.folder, (_checkpoint(side) or {}).get("sha256")
    if folder is None or not folder.is_dir():
        return f"'{folder}' is not there" if folder else "no folder is recorded"
    if recorded is not None and _on_disk(folder) != recorded:
        return f"'{folder}' holds other files than those that answered"
    return folder


def _recipe(side: Side) -> _Described:
    recipe = side.recipe
    if not isinstance(recipe, Recipe):
        return None
    return {name: getattr(recipe, name) for name in _MAKES}


def _calibration(side: Side) -> _Described:
    recipe = side.recipe
    if not isinstance(recipe, Recipe):
        return None
    return {
        "settings": dataclasses.replace(recipe.calibration, batch_tokens=None),
        "device": recipe.device,
        "data sha256": side.made_from.get(CALIBRATE.name, {}).get("calibration data"),
    }


def _model(side: Side) -> _Described:
    froms = (side.made_from.get(stage.name, {}) for stage in (EXPORT, CALIBRATE))
    digest = next((made["model"] for made in froms if "model" in made), None)
    if digest is None and side.entry is not None:
        digest = side.entry.inputs.model_digest
    if digest is None and side.verdict is not None:
        digest = side.verdict.baseline_digest
    return None if digest is None else {"sha256": digest}


def _checkpoint(side: Side) -> _Described:
    digest = next(_checkpoint_digests(side), None) or _on_disk(side.folder)
    return None if digest is None else {"sha256": digest}


def _checkpoint_digests(side: Side) -> Iterator[str]:
    """Yield the digest of the checkpoint's files as the stages saw them, the last first."""
    if side.deployment is not None and not side.deployment.address:
        yield side.deployment.checkpoint_digest
    if (verified := side.nouns.get(VERIFY.name)) is not None:
        yield verified.checkpoint_digest
    if (made := side.nouns.get(EXPORT.name)) is not None:
        yield made.digest


def _on_disk(folder: Path | None) -> str | None:
    if folder is None or not folder.is_dir():
        return None
    with suppress(HarnessError):
        return digest_folder(folder)
    return None


def _plan(side: Side) -> _Described:
    return None if side.plan_digest is None else {"sha256": side.plan_digest}


def _stats(side: Side) -> _Described:
    file = side.place / _STATS_FILE
    if CALIBRATE.name not in side.nouns or not file.is_file():
        return None
    return {"sha256": sha256_of(file)}


def _engine(side: Side) -> _Described:
    installed = {"packages": _installed(side, ENGINE) or None}
    if side.deployment is not None:
        served = {"name": side.deployment.engine, "version": side.deployment.version}
        return {**served, **installed}
    name = side.recipe and side.recipe.engine.name
    return None if name is None else {"name": name, "version": None, **installed}


def _arguments(side: Side) -> _Described:
    spec = None if side.recipe is None else side.recipe.engine
    served = side.deployment
    return {
        "numerics": spec and spec.numerics,
        "image": spec and (spec.image or "none"),
        "typed": spec and list(spec.arguments),
        "started": served and _by_name(served.arguments),
        "dtype": served and served.dtype,
        "tensor_parallel_size": served and served.tensor_parallel_size,
    }


def _by_name(arguments: tuple[str, ...]) -> dict[str, str]:
    """Return arguments and variables by name, but for folders and ports: they change no number."""
    found: dict[str, str] = {}
    name = ""
    for one in arguments:
        if one.startswith("-") or "=" in one:
            name, _, value = one.partition("=")
            found[name] = value
        elif name:
            found[name] = f"{found[name]} {one}".strip()
    return {name: value or "set" for name, value in found.items() if name not in _PLACES}


def _hardware(side: Side) -> _Described:
    return None if side.deployment is None else {"device": side.deployment.device}


def _kernels(side: Side) -> _Described:
    served = side.deployment
    if served is None:
        return None
    computed = {"arithmetic": " ".join(sorted(served.exercised)) or "unquantized"}
    return {**served.kernels, **computed}


def _versions(side: Side) -> _Described:
    """Return packages' versions as far as they are kept, and their digest."""
    digests = (side.made_from.get(stage.name, {}) for stage in (CANDIDATE, CALIBRATE))
    return {
        "packages": side.entry and dict(side.entry.inputs.versions),
        "sha256": next((made["versions"] for made in digests if "versions" in made), None),
    }


def _environment(side: Side) -> _Described:
    seen = side.surroundings
    if not seen:
        return None
    return {
        "operating system": _in_turn(one.platform for one in seen),
        "packages": _installed(side, HARNESS),
    }


def _installed(side: Side, name: str) -> dict[str, str]:
    """Return the versions in one environment of a run; of a resumed run all, in their order."""
    found: dict[str, list[str]] = {}
    for environment in (e for one in side.surroundings for e in one.environments if e.name == name):
        found.setdefault("Python", []).append(environment.python)
        for package in environment.packages:
            found.setdefault(package.name, []).append(package.version)
    return {package: _in_turn(versions) for package, versions in found.items()}


def _in_turn(values: Iterable[str]) -> str:
    return ", then ".join(dict.fromkeys(values))


def _host(side: Side) -> _Described:
    hosts = [one.host for one in side.surroundings if one.host]
    return {"name": _in_turn(hosts)} if hosts else None


def _suite(side: Side) -> Suite | None:
    return None if side.recipe is None else side.recipe.suite


def _questions(side: Side) -> _Described:
    suite, card = _suite(side), side.candidate and side.candidate.scorecard
    return {
        "tasks": suite and _tasks_of(suite, judging=False),
        "suite": suite and _fields_of(suite, judging=False),
        "generation": card and dict(card.generation),
        "sha256": card.suite_digest if card else suite and suite.digest,
    }


def _judging(side: Side) -> _Described:
    suite, recipe = _suite(side), side.recipe
    if suite is None or recipe is None:
        return None
    return {
        "tasks": _tasks_of(suite, judging=True),
        **_fields_of(suite, judging=True),
        **{name: getattr(recipe, name) for name in _JUDGES_RUNS},
    }


def _tasks_of(suite: Suite, *, judging: bool) -> dict[str, object]:
    return {
        task.name: {
            field.name: getattr(task, field.name)
            for field in dataclasses.fields(task)
            if (field.name in _JUDGES_TASKS) is judging
        }
        for task in suite.tasks
    }


def _fields_of(suite: Suite, *, judging: bool) -> dict[str, object]:
    other = {"tasks", "digest", "tasks_from", "task_code"}
    return {
        field.name: getattr(suite, field.name)
        for field in dataclasses.fields(suite)
        if field.name not in other and (field.name in _JUDGES_SUITES) is judging
    }


def _checks(side: Side) -> _Described:
    found = {check.id: _said(check) for check in _each_check(side)}
    return found or None


def _each_check(side: Side) -> Iterator[Check]:
    reports: list[IntegrityReport | SmokeReport | None] = [
        side.nouns.get(stage.name) for stage in (VERIFY, SMOKE, SMOKE_DECLARED)
    ]
    for report in reports:
        yield from report.checks if report is not None else ()


def _said(check: Check) -> str:
    return "passed" if check.passed else f"failed ({check.severity}): {check.message}"


def _ending(side: Side) -> _Described:
    verdict = side.verdict
    codes = " ".join(verdict.reason_codes) if verdict and side.failure is None else ""
    return {"ending": side.ending, "reason codes": codes}


def _prompts(side: Side) -> object:
    return _of_samples(side.candidate, lambda s: (s.doc_id, s.repeat, s.prompt_hash, s.target_hash))


def _answers(side: Side) -> object:
    return _of_samples(side.candidate, lambda s: (s.doc_id, s.repeat, s.value, s.answer, s.finish))


def _baseline(side: Side) -> object:
    return _of_samples(side.baseline, lambda s: (s.doc_id, s.repeat, s.value, s.answer, s.finish))


def _of_samples(arm: Arm | None, told: Callable[[Any], tuple[object, ...]]) -> object:
    if arm is None or not arm.samples:
        return None
    return to_json({task: [list(told(s)) for s in found] for task, found in arm.samples.items()})


_DESCRIBED: Mapping[Part, Callable[[Side], _Described]] = {
    Part.QUESTIONS: _questions,
    Part.CHECKPOINT: _checkpoint,
    Part.RECIPE: _recipe,
    Part.CALIBRATION: _calibration,
    Part.MODEL: _model,
    Part.KERNELS: _kernels,
    Part.ARGUMENTS: _arguments,
    Part.ENGINE: _engine,
    Part.HARDWARE: _hardware,
    Part.VERSIONS: _versions,
    Part.ENVIRONMENT: _environment,
    Part.HOST: _host,
    Part.CHECKS: _checks,
    Part.JUDGING: _judging,
    Part.ENDING: _ending,
}
"""Parts of which it can be said what differs."""
_WHOLE: Mapping[Part, Callable[[Side], object]] = {
    Part.PLAN: _plan,
    Part.STATS: _stats,
    Part.PROMPTS: _prompts,
    Part.ANSWERS: _answers,
    Part.BASELINE: _baseline,
}
"""Parts of which it is only said whether they differ; what does is said item by item, or not."""
