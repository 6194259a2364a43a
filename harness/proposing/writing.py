"""A proposed suite as YAML, with a comment that says where each number is from."""

import os
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import yaml

from harness.artifacts import Suite, TaskSpec
from harness.proposing.numbers import Proposed

_WIDTH = 98


class Reasons(NamedTuple):
    """Why the suite's own settings are what they are."""

    head: tuple[str, ...]
    """What stands at the top."""
    max_model_len: str
    chats: str
    truncated: str
    items: tuple[str, ...]
    """Of each task."""
    chance: tuple[str, ...]


def written(suite: Suite, tasks: Sequence[Proposed], reasons: Reasons, *, into: Path) -> str:
    """Return the file's text; folders are named from where it will lie."""
    return "\n".join(_lines(suite, tasks, reasons, into.resolve().parent)) + "\n"


def draft(suite: Suite) -> str:
    """Return a suite as YAML without a comment, with folders as they are."""
    values: dict[str, object] = {
        "version": 1,
        "name": suite.name,
        "max_model_len": suite.max_model_len,
        "apply_chat_template": suite.apply_chat_template,
        "seed": suite.seed,
        "batch_size": suite.batch_size,
        "confidence": suite.confidence,
        "max_truncated": suite.max_truncated,
        "tasks_from": list(suite.tasks_from),
        "tasks": [_asked(proposed) for proposed in suite.tasks],
    }
    if suite.smoke is not None:
        values["smoke"] = suite.smoke.name
    text: str = yaml.safe_dump(values, sort_keys=False)
    return text


def _lines(
    suite: Suite, tasks: Sequence[Proposed], reasons: Reasons, folder: Path
) -> Iterator[str]:
    for line in reasons.head:
        yield from textwrap.wrap(line, _WIDTH, initial_indent="# ", subsequent_indent="# ")
    yield "version: 1"
    yield f"name: {_scalar(suite.name)}"
    if suite.tasks_from:
        yield "tasks_from:"
        yield from (f"  - {_scalar(_from(folder, one))}" for one in suite.tasks_from)
    yield from _with("max_model_len", suite.max_model_len, reasons.max_model_len)
    yield from _with("apply_chat_template", suite.apply_chat_template, reasons.chats)
    yield f"seed: {suite.seed}"
    yield f"batch_size: {suite.batch_size}"
    yield f"confidence: {suite.confidence:g}"
    yield from _with("max_truncated", suite.max_truncated, reasons.truncated)
    if suite.smoke is not None:
        yield f"smoke: {_scalar(suite.smoke.name)}"
    yield "tasks:"
    for proposed, items, chance in zip(tasks, reasons.items, reasons.chance, strict=True):
        why = {
            "items": items,
            "margin": proposed.margin_reason,
            "flip_rate": proposed.flips_reason,
            "chance": chance,
            "baseline_accuracy": "measured",
        }
        begin = "  - "
        for key, value in _asked(proposed.spec).items():
            yield from _with(key, value, why.get(key, ""), indent=begin)
            begin = "    "


def _asked(spec: TaskSpec) -> dict[str, object]:
    """Return a task as a suite's file has it, without what is as it is anyway."""
    always = ("name", "tier", "metric", "filter", "items", "margin", "flip_rate", "num_fewshot")
    values = {key: getattr(spec, key) for key in (*always, "chance", "baseline_accuracy")}
    values["tier"] = str(values["tier"])
    if spec.is_drawn:
        for key in ("repeats", "temperature", "top_p", "item_sd", "repeat_sd"):
            values[key] = getattr(spec, key)
    return values


def _with(key: str, value: object, why: str, *, indent: str = "") -> Iterator[str]:
    """Yield a setting, with its reason above it."""
    column = " " * len(indent)
    if why:
        yield from textwrap.wrap(
            why, _WIDTH - len(column), initial_indent=f"{column}# ", subsequent_indent=f"{column}# "
        )
    yield f"{indent}{key}: {_scalar(value)}"


def _scalar(value: object) -> str:
    text: str = yaml.safe_dump(value, width=10_000)
    return text.removesuffix("\n").removesuffix("\n...")


def _from(folder: Path, named: str) -> str:
    """Return a folder's path from where the suite lies, or as it is where that is far away."""
    relative = os.path.relpath(named, folder)
    return named if relative.startswith("../../..") else relative
