"""A user's own folder of lm-eval tasks, correct until a test spoils it; the canary can do them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from harness.artifacts import Suite
from harness.recipe import load_suite
from harness.score import mistakes_of

GENERATED: Mapping[str, Any] = {
    "task": "own_next",
    "dataset_path": "json",
    "dataset_kwargs": {"data_files": {"test": "own_next.jsonl", "shots": "shots.jsonl"}},
    "test_split": "test",
    "fewshot_split": "shots",
    "output_type": "generate_until",
    "doc_to_text": "{{prompt}}",
    "doc_to_target": "{{answer}}",
    "generation_kwargs": {"until": ["\n"], "max_gen_toks": 8, "do_sample": False},
    "filter_list": [
        {"name": "plain", "filter": [{"function": "remove_whitespace"}, {"function": "take_first"}]}
    ],
    "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
    "metadata": {"version": 1.0},
}
CHOSEN: Mapping[str, Any] = {
    "task": "own_choice",
    "dataset_path": "json",
    "dataset_kwargs": {"data_files": {"test": "own_choice.jsonl"}},
    "test_split": "test",
    "output_type": "multiple_choice",
    "doc_to_text": "{{prompt}}",
    "doc_to_choice": "choices",
    "doc_to_target": "gold",
    "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    "metadata": {"version": 1.0},
}
ASKED: Mapping[str, Any] = {
    "name": "own_next",
    "tier": "critical",
    "metric": "exact_match",
    "filter": "plain",
    "items": 60,
    "margin": 0.2,
    "flip_rate": 0.02,
    "num_fewshot": 0,
    "chance": 0.0,
}
ASKED_TO_CHOOSE: Mapping[str, Any] = {
    **ASKED,
    "name": "own_choice",
    "metric": "acc",
    "filter": "none",
    "chance": 0.5,
}
SUITE: Mapping[str, Any] = {
    "version": 1,
    "name": "mine",
    "max_model_len": 256,
    "apply_chat_template": False,
    "seed": 1234,
    "batch_size": 32,
    "confidence": 0.95,
    "max_truncated": 0.05,
    "tasks_from": ["tasks"],
}
MARK = "import pathlib\npathlib.Path(__file__).with_name('ran').touch()\n"
"""Python that leaves a file 'ran' beside it when it is run."""
ASK = "def ask(doc):\n    return doc['prompt']\n"


class OwnTasks:
    """A suite beside its folder of tasks."""

    def __init__(self, folder: Path) -> None:
        self.root = folder
        self.folder = folder / "tasks"
        self.folder.mkdir(parents=True)
        self.items = [{"prompt": f"Q: {n}+21? A:", "answer": str(n + 21)} for n in range(10, 70)]
        self.choices: list[dict[str, Any]] = [
            {
                "prompt": f"Q: larger of {n} and {n + 111}? A:",
                "choices": [str(n), str(n + 111)],
                "gold": 1,
            }
            for n in range(201, 261)
        ]
        shots = [{"prompt": f"Q: {n}+12? A:", "answer": str(n + 12)} for n in range(30, 34)]
        self.write_task(GENERATED)
        self.write_task(CHOSEN)
        self.write_items("own_next", self.items)
        self.write_items("own_choice", self.choices)
        self.write_items("shots", shots)
        self.suite = self.write_suite()

    def write_task(self, values: Mapping[str, Any], file: str = "", **changes: object) -> Path:
        """Write a task's YAML with changes; None takes a key out."""
        merged = {k: v for k, v in {**values, **changes}.items() if v is not None}
        path = self.folder / (file or f"{values['task']}.yaml")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(merged, sort_keys=False), encoding="utf-8")
        return path

    def write_items(self, name: str, rows: list[dict[str, Any]]) -> Path:
        path = self.folder / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return path

    def write_suite(self, *tasks: Mapping[str, Any], **changes: object) -> Path:
        merged = {k: v for k, v in {**SUITE, **changes}.items() if v is not None}
        merged["tasks"] = [dict(task) for task in tasks or (ASKED, ASKED_TO_CHOOSE)]
        path = self.root / "mine.yaml"
        path.write_text(yaml.safe_dump(merged, sort_keys=False), encoding="utf-8")
        return path


def write_code(own: OwnTasks, function: str, file: str = "", **changes: object) -> Path:
    """Write a task whose prompts are made by a function."""
    path = own.write_task(GENERATED, file, **changes)
    path.write_text(path.read_text().replace("'{{prompt}}'", f"!function {function}"))
    return path


def loaded(own: OwnTasks, *, task_code: bool = False) -> Suite:
    return load_suite(str(own.suite), task_code=task_code)


def lines(own: OwnTasks, *, task_code: bool = False) -> list[str]:
    """Return all that is wrong with the suite."""
    return [str(error) for error in mistakes_of(loaded(own, task_code=task_code))]
