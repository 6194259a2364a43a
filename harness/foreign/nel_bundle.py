"""Bundles of NeMo Evaluator (0.3 on): a file about a benchmark, and a row for each answer.

Repeats are rows of one problem. How an answer ended stands in trajectories.jsonl, where there is
one. The reward is the metric; further scorers are metrics of their own.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from harness.errors import IncomparableError, ReasonCode, RunDirectoryError, UnreadableError
from harness.foreign.gaps import unseen
from harness.foreign.recorded import Answer, Metric, Recorded, RecordedTask, by_item, checkpoint_of
from harness.reading import iter_json_lines, open_regular, read_json_object

TOOL = "NeMo Evaluator"
REWARD = Metric("reward")
_OF_MODEL = frozenset(
    {"model", "model_url", "base_url", "_sandbox_config", "output_dir", "shard", "shard_range"}
    | {"n_shards", "endpoint_type_detected"}
)
"""Settings that say which model answers, or where; every other one must be alike."""
_SAMPLING = ("temperature", "max_tokens", "top_p")
_DUST = 1e-4
"""NeMo Evaluator rounds averages to four digits."""
_ENDINGS = {"stop": "stop", "tool_calls": "stop", "length": "length"}


class Bundle(NamedTuple):
    """One benchmark's files."""

    path: Path
    values: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Return the benchmark's name, without where it comes from."""
        return self.full_name.rsplit("/", 1)[-1]

    @property
    def full_name(self) -> str:
        """Return the benchmark's name as NeMo Evaluator has it."""
        return str(self.values["benchmark"].get("name"))

    @property
    def config(self) -> Mapping[str, Any]:
        """Return the settings of its run."""
        found = self.values.get("config")
        return found if isinstance(found, dict) else {}


def bundles_in(path: Path) -> list[Path]:
    """Return the bundles of a folder, or of the folders in it; a file that is one, itself."""
    if path.is_file():
        is_bundle = path.name.startswith("eval-") and path.suffix == ".json"
        return [path] if is_bundle and _results(path).exists() else []
    return sorted([*path.glob("eval-*.json"), *path.glob("*/eval-*.json")])


def _results(bundle: Path) -> Path:
    return bundle.parent / "results.jsonl"


def read_bundles(path: Path, files: Sequence[Path]) -> Recorded:
    """Read an arm whose benchmarks lie in bundles.

    Raises:
        UnreadableError: a file is malformed.
        RunDirectoryError: rows are missing, or are another run's.
        IncomparableError: the bundles are of several models.
    """
    bundles = [_load(file) for file in files]
    models = sorted({str(bundle.config.get("model")) for bundle in bundles})
    if len(models) > 1:
        message = (
            f"'{path}' holds results of {len(models)} models: {', '.join(models)}. Name the folder "
            "of one."
        )
        raise IncomparableError(message)
    chosen: dict[str, Bundle] = {}
    for bundle in sorted(bundles, key=lambda one: str(one.values.get("timestamp"))):
        chosen[bundle.name] = bundle
    tasks = tuple(_task(bundle) for bundle in chosen.values())
    unknown = any(answer.finish == "unknown" for task in tasks for answer in task.answers)
    versions = sorted({str(b.values.get("sdk_version", "unknown")) for b in chosen.values()})
    return Recorded(
        tool=TOOL,
        scorer=TOOL,
        version=", ".join(versions),
        place=str(path),
        model=models[0],
        identity=_identity(next(iter(chosen.values()))),
        runs=frozenset(sha256_of_files(b.path, _results(b.path)) for b in chosen.values()),
        engine="a server that NeMo Evaluator asked",
        tasks=tasks,
        groups={},
        gaps=unseen(str(path), TOOL, endings=unknown),
        notes=tuple(_notes(bundles, chosen)),
    )


def _identity(bundle: Bundle) -> str:
    """Return which files answered, where harness wrote the bundle; NeMo Evaluator asks a server."""
    own = bundle.values.get("harness")
    return checkpoint_of(own.get("deployment")) if isinstance(own, dict) else ""


def _load(file: Path) -> Bundle:
    values = read_json_object(file, infinity=True)
    if not isinstance(values.get("benchmark"), dict):
        raise UnreadableError(file, "is no bundle of NeMo Evaluator: it has no 'benchmark'")
    return Bundle(file, values)


def _notes(bundles: Sequence[Bundle], chosen: Mapping[str, Bundle]) -> Iterator[str]:
    for name, bundle in chosen.items():
        number = sum(one.name == name for one in bundles)
        if number > 1:
            yield f"{number} bundles are of {name}: the latest, '{bundle.path.name}', was read"
        silent = [what for what in _SAMPLING if what not in bundle.config]
        if silent:
            said = ", ".join(silent)
            yield f"with which {said} {name} was asked in '{bundle.path}' is not recorded"


def _task(bundle: Bundle) -> RecordedTask:
    file = _results(bundle.path)
    if not file.is_file():
        message = (
            f"'{bundle.path}' has scores and no results.jsonl beside it: scores without answers "
            "cannot be paired. Copy the whole folder, or run the benchmark again."
        )
        raise RunDirectoryError(message)
    rows = [row_of(line.value, line.where) for line in iter_json_lines(file)]
    _check_whole(bundle, file, rows)
    endings = _read_endings(bundle.path.parent / "trajectories.jsonl")
    answers = sorted((answer_of(row, endings) for row in rows), key=by_item)
    metrics = dict.fromkeys(metric for answer in answers for metric in answer.values)
    return RecordedTask(
        name=bundle.name,
        answers=tuple(answers),
        metrics=tuple(metrics),
        conditions=_conditions(bundle),
        higher_is_better={REWARD.name: True},
        left_out=_left_out(bundle, len({answer.item for answer in answers})),
    )


def row_of(value: object, where: str) -> dict[str, Any]:
    """Return one answer's row.

    Raises:
        UnreadableError: it is none.
    """
    if not isinstance(value, dict) or not isinstance(value.get("problem_idx"), int | str):
        raise UnreadableError(where, "is no result of NeMo Evaluator: it has no 'problem_idx'")
    repeat = value.get("repeat", 0)
    if not isinstance(repeat, int) or isinstance(repeat, bool):
        raise UnreadableError(where, f"has the repeat {repeat!r:.20}, which is no number")
    return value


def _check_whole(bundle: Bundle, file: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Refuse rows that are not all that were asked, or another run's.

    Raises:
        RunDirectoryError: with both numbers.
    """
    benchmark = bundle.values["benchmark"]
    samples, repeats = benchmark.get("samples"), benchmark.get("repeats") or 1
    wanted = [bundle.values.get("n_results")]
    if "shuffle" in bundle.config and isinstance(samples, int) and isinstance(repeats, int):
        wanted.append(samples * repeats)  # of a container the samples are the harness's own count
    for number in wanted:
        if number is not None and number != len(rows):
            message = (
                f"'{file}' has {len(rows)} answers, and '{bundle.path.name}' says {number}. Run "
                "the benchmark again (`nel eval resume`)."
            )
            raise RunDirectoryError(message)
    scores = benchmark.get("scores")
    summary = scores.get("summary") if isinstance(scores, dict) else None
    mean = summary.get("mean") if isinstance(summary, dict) else None
    rewards = [row.get("reward") for row in rows]
    numbers = [float(r) for r in rewards if isinstance(r, bool | int | float)]
    if not isinstance(mean, int | float) or len(numbers) < len(rows) or not numbers:
        return
    if abs(fmean(numbers) - mean) > _DUST:
        message = (
            f"'{file}' was changed, or is of another run: its reward is {fmean(numbers):.4f} on "
            f"average, and '{bundle.path.name}' says {mean:.4f}. Run the benchmark again."
        )
        raise RunDirectoryError(message, reason=ReasonCode.EVIDENCE_CHANGED)


class Ending(NamedTuple):
    """How an answer ended."""

    finish: str = "unknown"
    num_tokens: int | None = None


def _read_endings(file: Path) -> dict[tuple[str, int], Ending]:
    """Return how each answer ended, as far as it was kept."""
    found: dict[tuple[str, int], Ending] = {}
    for line in iter_json_lines(file) if file.is_file() else ():
        step = line.value if isinstance(line.value, dict) else {}
        model, repeat = step.get("model"), step.get("repeat", 0)
        key = str(step.get("problem_idx")), repeat if isinstance(repeat, int) else 0
        if step.get("failure_category") == "timeout":
            found[key] = Ending("timeout")
        elif step.get("model_error"):
            found[key] = Ending("error")
        elif isinstance(model, dict):
            tokens = model.get("tokens")
            count = tokens.get("completion") if isinstance(tokens, dict) else None
            finish = _ENDINGS.get(str(model.get("finish_reason")), "unknown")
            is_count = isinstance(count, int) and not isinstance(count, bool) and count >= 0
            found[key] = Ending(finish, count if is_count else None)
    return found


def answer_of(row: Mapping[str, Any], endings: Mapping[tuple[str, int], Ending]) -> Answer:
    """Return what one row says."""
    details = row.get("scoring_details")
    failed = isinstance(details, dict) and "error_category" in details
    key = str(row["problem_idx"]), row.get("repeat", 0)
    prompt, target = _text(row.get("prompt")), _text(row.get("expected_answer"))
    further = row.get("scorer_rewards")
    values: dict[Metric, object] = {REWARD: row.get("reward")}
    if isinstance(further, dict):
        values |= {Metric(str(name)): value for name, value in further.items()}
    finish, num_tokens = endings.get(key, Ending())
    return Answer(
        item=key[0],
        repeat=key[1],
        prompt_hash=sha256_of_text(prompt),
        target_hash=sha256_of_text(target),
        prompt=prompt,
        target=target,
        answer=_text(row.get("model_response")),
        finish="error" if failed and finish != "timeout" else finish,
        num_tokens=num_tokens,
        values=values,
        fields=row["metadata"] if isinstance(row.get("metadata"), dict) else {},
    )


def sha256_of_files(*files: Path) -> str:
    """Return the hash of what files hold together: of answers alone it may be another model's."""
    sha = hashlib.sha256()
    for file in files:
        with open_regular(file) as content:
            while block := content.read(1 << 20):
                sha.update(block)
    return sha.hexdigest()


def _text(value: object) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


def sha256_of_text(text: str) -> str:
    """Return the hash that lm-eval gives a text too."""
    return hashlib.sha256(text.encode()).hexdigest()


def _conditions(bundle: Bundle) -> dict[str, object]:
    config = bundle.config
    found: dict[str, object] = {
        "NeMo Evaluator's version": bundle.values.get("sdk_version"),
        "the benchmark": bundle.full_name,
        "repeats": bundle.values["benchmark"].get("repeats"),
    }
    return found | {name: config[name] for name in config if name not in _OF_MODEL}


def _left_out(bundle: Bundle, number: int) -> str:
    shuffle = bundle.config.get("shuffle")
    sizes = shuffle if isinstance(shuffle, dict) else {}
    whole, limit = sizes.get("ds_full_size"), bundle.config.get("max_problems")
    if bundle.config.get("shard") is not None:
        return f"{number} items of one shard alone (`nel eval merge` puts shards together)"
    if isinstance(whole, int) and number < whole:
        return f"{number} of {whole} items were asked (max_problems {limit})"
    is_part = limit and not isinstance(whole, int)
    return f"{number} items alone were asked (max_problems {limit})" if is_part else ""
