"""Write the canary's lm-eval tasks, its calibration texts and its held-aside texts.

    python -m scripts.canary.tasks --out evals

A task is a YAML file and a JSONL file of the same name. The levels of each task were picked from
what the trained canary scores at each level, so that some tasks are all but certain (they gate) and
some leave room to show a loss. All prompts are asked with no examples and no chat template.
"""
# ruff: noqa: S311 -- seeded pseudo-random numbers are the purpose.

import argparse
import json
import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.canary.language import Item, calibration_texts, eval_items, facts, held_aside_texts

NUM_CALIBRATION_TEXTS = 640
NUM_HELD_ASIDE_TEXTS = 192


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """One task: which questions, how many, and how they are answered."""

    name: str
    about: str
    kind: str
    levels: tuple[int, ...]
    num_items: int
    num_choices: int = 0
    """0: the answer is written; 2 to 4: it is picked."""


TASKS = (
    Task(
        name="canary_fact",
        about="Recall of facts that training repeats often",
        kind="fact",
        levels=(0,),
        num_items=700,
    ),
    Task(
        name="canary_add",
        about="Sums of two-digit numbers",
        kind="add",
        levels=(2,),
        num_items=700,
    ),
    Task(
        name="canary_reverse",
        about="Words of 5 to 8 letters written backwards",
        kind="reverse",
        levels=(5, 6, 7, 8),
        num_items=700,
    ),
    Task(
        name="canary_sort",
        about="Letters of words of 5 to 8 letters in alphabetical order",
        kind="sort",
        levels=(5, 6, 7, 8),
        num_items=700,
    ),
    Task(
        name="canary_compare",
        about="The larger of two numbers of three or four digits",
        kind="compare",
        levels=(3, 4),
        num_items=700,
        num_choices=2,
    ),
    Task(
        name="canary_multiply",
        about="Products of a number of three or four digits and one digit",
        kind="multiply",
        levels=(3, 4),
        num_items=400,
    ),
    Task(
        name="canary_recall",
        about="Recognition of facts that training repeats seldom",
        kind="fact",
        levels=(3, 4),
        num_items=400,
        num_choices=4,
    ),
    Task(
        name="canary_count",
        about="How often a letter stands in a word of 12 to 18 letters",
        kind="count",
        levels=(12, 15, 18),
        num_items=300,
        num_choices=4,
    ),
    Task(
        name="canary_program",
        about="The last value of three assignments modulo ten",
        kind="program",
        levels=(3,),
        num_items=400,
        num_choices=3,
    ),
)


def offer(task: Task, item: Item, rng: random.Random) -> tuple[str, ...]:
    """Return the choices of an item: its own, or its answer among wrong ones of the same form."""
    if item.choices:
        return item.choices
    if task.kind == "fact":
        others = [other.answer for tier in task.levels for other in facts()[tier]]
    else:
        others = [str(digit) for digit in range(10)]
    wrong = sorted({*others} - {item.answer})
    choices = [item.answer, *rng.sample(wrong, task.num_choices - 1)]
    rng.shuffle(choices)
    return tuple(choices)


def rows(task: Task) -> list[dict[str, Any]]:
    """Return the lines of the task's JSONL file."""
    rng = random.Random(f"choices {task.name}")
    lines = []
    for index, item in enumerate(eval_items(task.kind, task.levels, task.num_items)):
        line: dict[str, Any] = {"id": f"{task.name}-{index:04d}", "prompt": item.prompt}
        if task.num_choices:
            choices = offer(task, item, rng)
            line |= {"choices": list(choices), "gold": choices.index(item.answer)}
        else:
            line["answer"] = item.answer
        lines.append(line)
    return lines


def yaml_text(task: Task, lines: Iterable[Mapping[str, Any]]) -> str:
    """Return the task's lm-eval YAML file."""
    head = f"""\
# {task.about}. Written by scripts/canary/tasks.py.
task: {task.name}
dataset_path: json
dataset_kwargs:
  data_files:
    test: {task.name}.jsonl
test_split: test
num_fewshot: 0
doc_to_text: "{{{{prompt}}}}"
"""
    if task.num_choices:
        return f"""{head}\
output_type: multiple_choice
doc_to_choice: choices
doc_to_target: gold
metric_list:
  - metric: acc
    aggregation: mean
    higher_is_better: true
metadata:
  version: 1.0
"""
    longest = max(len(line["answer"]) for line in lines)
    return f"""{head}\
output_type: generate_until
doc_to_target: "{{{{answer}}}}"
generation_kwargs:
  until: ["\\n"]
  max_gen_toks: {longest + 4}
  do_sample: false
filter_list:
  - name: remove_whitespace
    filter:
      - function: remove_whitespace
      - function: take_first
metric_list:
  - metric: exact_match
    aggregation: mean
    higher_is_better: true
metadata:
  version: 1.0
"""


def write_jsonl(path: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    """Write one JSON object a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def main() -> None:
    """Write every file under the folder named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="the evals folder")
    out = parser.parse_args().out
    asked = set[str]()
    for task in TASKS:
        lines = rows(task)
        asked |= {line["prompt"] for line in lines}
        folder = out / "tasks" / "canary"
        write_jsonl(folder / f"{task.name}.jsonl", lines)
        (folder / f"{task.name}.yaml").write_text(yaml_text(task, lines))
    calibration = calibration_texts(NUM_CALIBRATION_TEXTS, frozenset(asked))
    write_jsonl(out / "canary" / "calibration.jsonl", ({"text": text} for text in calibration))
    held_aside = held_aside_texts(NUM_HELD_ASIDE_TEXTS)
    write_jsonl(out / "canary" / "heldout.jsonl", ({"text": text} for text in held_aside))


if __name__ == "__main__":
    main()
