"""The model card of a release: what it is, what it scored, how it was decided, how it is served."""

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path

from huggingface_hub import ModelCardData

from harness.artifacts import RunRecord, Scale, SignOff, TaskVerdict, Trial, Verdict
from harness.runs import plain_name
from harness.score.data_sets import DataSet
from harness.serve import serve_command
from harness.signoff.results import model_index_of

CARD_FILE = "README.md"
_HARDLY = 1e-9
_PLACE = "MODEL"
"""Stands for where the files lie."""
_SPECIAL = str.maketrans({"|": "\\|", "\n": " ", "\r": " ", "<": "&lt;"})


def card_of(
    record: RunRecord,
    verdict: Verdict,
    signoff: SignOff,
    data_sets: Mapping[str, DataSet],
    *,
    is_signed_off: bool,
) -> str:
    """Return the text of README.md.

    Args:
        record: of the run.
        verdict: its verdict.
        signoff: with the time and the digests; its `files` are not read.
        data_sets: of each task of the suite.
        is_signed_off: whether there is a bundle of it.
    """
    how = "Signed off" if is_signed_off else "Judged, and not signed off,"
    base, name = record.recipe.model, _name_of(record.recipe)
    is_hub_id = base.count("/") == 1 and not Path(base).exists() and base[0] not in "./~"
    front = ModelCardData(
        model_name=name,
        base_model=base if is_hub_id else None,
        base_model_relation="quantized" if is_hub_id else None,
        library_name="transformers",
        tags=[verdict.scheme.lower(), "quantized", "harness"],
        eval_results=model_index_of(verdict, record.recipe.suite, data_sets),
    )
    body = [
        f"# {_cell(name)}",
        "",
        (
            f"{_cell(plain_name(base))}, quantized to {_cell(verdict.scheme)}. "
            f"{how} **{verdict.title}** on {signoff.signed_off}."
        ),
        "",
        _cell(verdict.summary),
        "",
        *_scores(verdict),
        "",
        *_waivers(verdict),
        "## What the verdict holds for",
        "",
        *(f"- {_cell(line)}" for line in verdict.scope),
        "",
        *_serving(record),
        "## Which bytes",
        "",
        (
            f"Checkpoint `{signoff.checkpoint_digest}`, compared with the unquantized model "
            f"`{signoff.baseline_digest}`; suite `{signoff.suite_digest}`; "
            f"{_cell(signoff.harness)}."
        ),
        "",
        "| file | sha256 |",
        "| --- | --- |",
        *(f"| {_cell(file)} | `{sha256}` |" for file, sha256 in sorted(signoff.checkpoint.items())),
    ]
    return f"---\n{front.to_yaml()}\n---\n\n" + "\n".join(body) + "\n"


def _name_of(recipe: Trial) -> str:
    """Return what the model is called: as its folder, or as its source and recipe."""
    if recipe.checkpoint is not None:
        return plain_name(recipe.checkpoint)
    return f"{plain_name(recipe.model)}-{recipe.name}"


def _scores(verdict: Verdict) -> Iterator[str]:
    yield "## Scores"
    yield ""
    yield "| task | tier | unquantized | this model | recovery | interval of the difference | "
    yield "| --- | --- | --- | --- | --- | --- |"
    for task in verdict.tasks:
        cells = (
            task.task,
            task.tier.value,
            _score(task.baseline),
            _score(task.candidate),
            _recovery(task),
            _interval(task),
        )
        yield f"| {' | '.join(map(_cell, cells))} |"
    if verdict.flip_rate is not None:
        again = verdict.rerun_flip_rate
        own = (
            "" if again is None else f"; of the unquantized model's own when run again, {again:.2%}"
        )
        yield ""
        yield f"{verdict.flip_rate:.2%} of the answers are scored otherwise{own}."


def _score(value: float | None) -> str:
    return "not scored" if value is None else f"{value:.4f}"


def _recovery(task: TaskVerdict) -> str:
    if task.ratio is not None:
        return f"perplexity x {task.ratio.observed:.4f}"
    if (
        task.scale is not Scale.SHARE
        or task.baseline is None
        or task.candidate is None
        or abs(task.baseline) < _HARDLY
    ):
        return "not known"
    return f"{task.candidate / task.baseline:.2%}"


def _interval(task: TaskVerdict) -> str:
    if task.low is None or task.high is None:
        return "not known"
    return f"{task.low:+.4f} to {task.high:+.4f}, {-task.margin:+.4f} allowed"


def _waivers(verdict: Verdict) -> Iterator[str]:
    if not verdict.waived:
        return
    yield "## Waivers"
    yield ""
    for one in verdict.waived:
        yield _cell(
            f"- `{one.check}` failed and is waived until {one.expires} by {one.approver}: "
            f"{one.reason}"
        )
    yield ""


def _serving(record: RunRecord) -> Iterator[str]:
    if record.serve_command is None:
        return
    # Not as the run's own line says it: where the files lay on that machine is nobody's business.
    line = shlex.join(serve_command(record.recipe.engine, Path(_PLACE)))
    yield "## Serve it as it was judged"
    yield ""
    yield f"    {line}"
    yield ""


def _cell(text: str) -> str:
    """Return a text that is not ours, so that it stays in its line and its cell."""
    return text.translate(_SPECIAL)
