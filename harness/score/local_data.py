"""The items of the tasks that ship with harness, read without a cache and without a network.

Such a task names its JSONL file relative to its own YAML file, which lm-eval would look up from
the current directory. lm-eval's hook for custom data takes a function; this one keeps the items
in memory, so no cache folder is written and runs side by side do not meet.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from datasets import Dataset

from harness.errors import SuiteError, UnreadableError
from harness.reading import iter_json_lines, refused_as

Rows = list[dict[str, Any]]


def read_local_splits(folder: Path, arguments: Mapping[str, Any]) -> dict[str, Rows]:
    """Return the items of each split named by a task's `dataset_kwargs`.

    Args:
        folder: where the task's YAML file lies; `data_files` are relative to it.
        arguments: `{"data_files": {split: file or files}}`.

    Raises:
        SuiteError: a file is missing or a line of it is no JSON object.
    """
    files = arguments.get("data_files")
    if not isinstance(files, Mapping):
        message = f"a task in '{folder}' names no data_files by split. Write test: FILE.jsonl."
        raise SuiteError(message)
    splits: dict[str, Rows] = {}
    for split, names in files.items():
        several = names if isinstance(names, list) else [names]
        splits[str(split)] = [row for name in several for row in _read_rows(folder / str(name))]
    return splits


def in_memory(folder: Path, arguments: Mapping[str, Any]) -> Callable[..., dict[str, Dataset]]:
    """Return the function that lm-eval calls for a task's data, whatever it passes."""

    def load(**_: object) -> dict[str, Dataset]:
        splits = read_local_splits(folder, arguments)
        return {split: Dataset.from_list(rows) for split, rows in splits.items()}

    return load


def _read_rows(path: Path) -> Rows:
    rows: Rows = []
    with refused_as(SuiteError, "Restore the task's file."):
        for line in iter_json_lines(path):
            if not isinstance(line.value, dict):
                raise UnreadableError(line.where, "is no JSON object")
            rows.append(line.value)
    return rows
