"""What harnesses that NeMo Evaluator 0.1 and 0.2 runs leave of each answer, other than lm-eval.

    nemo-evaluator-per-sample-outputs/**/*.jsonl     its own common form of any harness
    <benchmark>/byob_predictions.jsonl               a benchmark of one's own (`--save-predictions`)
    eval-results/<benchmark>/output[-rs<k>].jsonl    NeMo-Skills; k is the repeat

simple-evals keeps its answers in a cache of pickled objects, which is not read: with the common
form beside it, that is.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from harness.artifacts import digest_of
from harness.errors import ReasonCode, RunDirectoryError, UnreadableError
from harness.foreign.nel_bundle import sha256_of_text
from harness.foreign.recorded import Answer, Metric, RecordedTask, by_item
from harness.reading import iter_json_lines, read_json_object

_COMMON = "nemo-evaluator-per-sample-outputs"
_PATTERNS = (
    f"{_COMMON}/**/*.jsonl",
    "*/byob_predictions.jsonl",
    "eval-results/*/output*.jsonl",
)
_DUST = 1e-4
"""NeMo Evaluator rounds averages to four digits."""
_REPEAT = re.compile(r"-rs(\d+)$")
_RIGHT = ("symbolic_correct", "is_correct", "correct", "passed", "success", "reward", "score")
"""Keys of a row of NeMo-Skills that say whether it is right, the first that it has."""
Row = tuple[Mapping[str, Any], str]
"""What one line says, and where."""


def samples_in(folder: Path) -> list[Path]:
    """Return the files of answers in a folder of artifacts."""
    return sorted(file for pattern in _PATTERNS for file in folder.glob(pattern))


def not_compared(folder: Path, tasks: Sequence[RecordedTask]) -> Iterator[str]:
    """Say of which tasks nothing beside the answers shows that the results were computed of them.

    A benchmark of one's own alone keeps its results in the terms of its answers.
    """
    compared = {file.parent.name for file in folder.glob("*/byob_results.json")}
    common = any(folder.glob(_PATTERNS[0]))
    for task in tasks:
        if common or task.name not in compared:
            yield f"the answers to {task.name} in '{folder}' were not compared with its results"


def read_samples_of(folder: Path, harness: str) -> tuple[RecordedTask, ...]:
    """Return the tasks whose answers lie in a folder of artifacts.

    Raises:
        RunDirectoryError: no answers lie there.
        UnreadableError: a file of them is malformed.
    """
    common, byob, skills = (
        tuple(_tasks(folder, pattern, read))
        for pattern, read in zip(_PATTERNS, (_common, _own_benchmark, _skills), strict=True)
    )
    tasks = common or (*byob, *skills)  # the common form repeats what the harness wrote itself
    if not tasks:
        message = (
            f"'{folder}' has scores of {harness} and no answers that are read here ({_COMMON}/, "
            "byob_predictions.jsonl, eval-results/*/output*.jsonl): scores without answers cannot "
            "be paired. Run it again so that it keeps its samples."
        )
        raise RunDirectoryError(message)
    return tasks


def _tasks(folder: Path, pattern: str, read: Any) -> Iterator[RecordedTask]:  # noqa: ANN401
    """Yield a task for each folder in which files of one form lie."""
    by_folder: dict[str, list[Path]] = {}
    for file in sorted(folder.glob(pattern)):
        place = file.stem if file.parent.name == _COMMON else file.parent.name
        by_folder.setdefault(place, []).append(file)
    for name, files in by_folder.items():
        answers = sorted((answer for file in files for answer in read(file)), key=by_item)
        metrics = dict.fromkeys(metric for answer in answers for metric in answer.values)
        rises = {m.name: True for m in metrics if read is _skills}
        yield RecordedTask(
            name=name,
            answers=tuple(answers),
            metrics=tuple(metrics),
            conditions={},
            higher_is_better=rises,
        )


def _rows(file: Path) -> Iterator[Row]:
    for line in iter_json_lines(file):
        if not isinstance(line.value, dict):
            raise UnreadableError(line.where, f"holds no answer but {line.value!r:.40}")
        yield line.value, line.where


def _common(file: Path) -> Iterator[Answer]:
    """Yield what the common form says; a step without a score of its own is none."""
    for row, where in _rows(file):
        if "id" not in row or "score" not in row:
            raise UnreadableError(where, "is no record of a sample: it has no 'id' and 'score'")
        if row["score"] is None:
            continue
        prompt, target = row.get("query"), row.get("ground_truth")
        yield _answer(
            row["id"],
            row.get("sub_query_id"),
            texts=(prompt, target, row.get("generation")),
            values={Metric("score"): row["score"]},
        )


def _own_benchmark(file: Path) -> Iterator[Answer]:
    """Yield what the runner of a benchmark of one's own says; repeats go on counting samples."""
    rows = list(_rows(file))
    _check_same_run(file, [row for row, _ in rows])
    repeats = 1 + max((_repeat(row) for row, _ in rows), default=0)
    of_each = len(rows) // repeats
    for row, where in rows:
        sample = row.get("sample_id")
        if not isinstance(sample, int) or not isinstance(row.get("metadata"), dict):
            raise UnreadableError(where, "is no prediction: it has no 'sample_id' or 'metadata'")
        scores = row.get("scores")
        fields = {k: v for k, v in row["metadata"].items() if k != "_repeat"}
        yield _answer(
            sample - _repeat(row) * of_each,
            _repeat(row),
            texts=(row.get("prompt"), row.get("target"), row.get("response")),
            values={Metric(str(k)): v for k, v in scores.items()}
            if isinstance(scores, dict)
            else {},
            fields=fields,
            failed=row.get("status") != "scored",
        )


def _check_same_run(file: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Refuse predictions that are not those that the results beside them were computed from.

    Raises:
        RunDirectoryError: an average, or the number of answers, is another.
    """
    beside = file.with_name("byob_results.json")
    results = read_json_object(beside, infinity=True) if beside.is_file() else {}
    for name, score in _scores(results):
        found = [row["scores"].get(name) for row in rows if isinstance(row.get("scores"), dict)]
        numbers = [float(v) for v in found if isinstance(v, bool | int | float)]
        stats = score.get("stats")
        said = (stats.get("count"), stats.get("mean")) if isinstance(stats, dict) else (None, None)
        count, mean = said
        is_other = isinstance(mean, int | float) and numbers and abs(fmean(numbers) - mean) > _DUST
        if is_other or (isinstance(count, int) and count != len(numbers)):
            message = (
                f"'{file}' was changed, or is of another run: {name} of {len(numbers)} answers is "
                f"{fmean(numbers or [0.0]):.4f} on average, and '{beside.name}' says {mean} of "
                f"{count}. Run the benchmark again."
            )
            raise RunDirectoryError(message, reason=ReasonCode.EVIDENCE_CHANGED)


def _scores(values: object) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield each score in the results, by name, however deep its task and metric lie."""
    for key, inner in values.items() if isinstance(values, dict) else ():
        if key == "scores" and isinstance(inner, dict):
            yield from ((str(k), v) for k, v in inner.items() if isinstance(v, dict))
        else:
            yield from _scores(inner)


def _repeat(row: Mapping[str, Any]) -> int:
    metadata = row.get("metadata")
    found = metadata.get("_repeat", 0) if isinstance(metadata, dict) else 0
    return found if isinstance(found, int) and found >= 0 else 0


def _skills(file: Path) -> Iterator[Answer]:
    """Yield what NeMo-Skills says: a line a problem, a file a repeat."""
    found = _REPEAT.search(file.stem)
    repeat = int(found.group(1)) if found else 0
    for number, (row, where) in enumerate(_rows(file)):
        key = next((key for key in _RIGHT if key in row), None)
        if key is None:
            raise UnreadableError(where, f"has none of {', '.join(_RIGHT)}: it was not judged")
        prompt = next(
            (row[k] for k in ("problem", "question", "input", "prompt") if k in row), None
        )
        yield _answer(
            row.get("problem_idx", row.get("id", number)),
            row.get("repeat") if isinstance(row.get("repeat"), int) else repeat,
            texts=(prompt, row.get("expected_answer"), row.get("generation", row.get("response"))),
            values={Metric(key): row[key]},
            fields=row,
            cut=row.get("finish_reason") == "length",
        )


def _answer(  # noqa: PLR0913 -- one argument a thing that the forms name in their own ways
    item: object,
    repeat: object,
    *,
    texts: Iterable[object],
    values: Mapping[Metric, object],
    fields: Mapping[str, object] | None = None,
    failed: bool = False,
    cut: bool = False,
) -> Answer:
    prompt, target, answer = (_text(value) for value in texts)
    return Answer(
        item=str(item),
        repeat=repeat if isinstance(repeat, int) else 0,
        prompt_hash=sha256_of_text(prompt),
        target_hash=sha256_of_text(target),
        prompt=prompt,
        target=target,
        answer=answer,
        finish="error" if failed else "length" if cut else "unknown",
        values=values,
        fields=fields or {},
    )


def _text(value: object) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else digest_of(value)
