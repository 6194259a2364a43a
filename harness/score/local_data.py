"""The items of own and of shipped tasks, read without a cache and without a network.

Such a task names files relative to its own YAML file, which lm-eval would look up from the current
directory. Where lm-eval would fetch a data set, this reads the items into memory: no cache folder
is written, runs side by side do not meet, and each item is known by its file and line.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import lm_eval.api.task
from datasets import Dataset

from harness.errors import SuiteError, UnreadableError
from harness.reading import bounds, iter_json_lines, open_regular, read_json, refused_as
from harness.score.sources import LM_EVAL_TASKS
from harness.tasks import BUILDERS, Definition, is_there

Rows = list[dict[str, Any]]


class Item(NamedTuple):
    """One item as it lies in its file."""

    fields: dict[str, Any]
    where: str
    """Such as `sums.jsonl:17`."""


def read_local_splits(folder: Path, config: Mapping[str, Any]) -> dict[str, list[Item]]:
    """Return the items of each split of a task.

    Args:
        folder: where the task's YAML file lies; its files are relative to it.
        config: of the task.

    Raises:
        SuiteError: a file is missing or a part of it is no item.
    """
    task = Definition(
        name=str(config.get("task")),
        file=folder / "task.yaml",
        config=config,
        read=(),
        functions=(),
    )
    files = task.data_files()
    if not files:
        message = f"a task in '{folder}' names no data_files by split. Write test: FILE.jsonl."
        raise SuiteError(message)
    arguments = config["dataset_kwargs"]
    read = _READERS[str(config["dataset_path"])]
    with refused_as(SuiteError, "Mend or restore the task's file."):
        return {
            split: [item for path in paths for item in read(_there(path), arguments)]
            for split, paths in files.items()
        }


def _there(path: Path) -> Path:
    if not is_there(path):
        here = Path(path.name)
        hint = (
            f" There is one in the current folder, '{here.absolute()}': move it"
            if is_there(here)
            else " Its data_files are looked for beside the task's YAML file"
        )
        raise UnreadableError(path, f"is not there.{hint}")
    return path


def _json(path: Path, arguments: Mapping[str, Any]) -> Iterator[Item]:
    with open_regular(path) as file:
        begins = file.read(64).lstrip()[:1]
    if "field" in arguments or begins == b"[":
        whole = read_json(path, most=bounds.LINES_BYTES)
        rows = whole.get(arguments["field"]) if isinstance(whole, dict) else whole
        if not isinstance(rows, list):
            raise UnreadableError(path, "holds no list of items")
        listed = [(f"{path}, item {number}", row) for number, row in enumerate(rows, start=1)]
    else:
        listed = [(f"{path}:{line.number}", line.value) for line in iter_json_lines(path)]
    for where, row in listed:
        if not isinstance(row, dict):
            raise UnreadableError(where, "is no JSON object")
        yield Item(row, where)


def _csv(path: Path, arguments: Mapping[str, Any]) -> Iterator[Item]:
    import pandas as pd  # noqa: PLC0415 -- takes a second; as `datasets` reads these files

    separator = arguments.get("sep") or arguments.get("delimiter") or ","
    try:
        with open_regular(path) as file:
            table = pd.read_csv(file, sep=separator)
    except (ValueError, UnicodeDecodeError) as error:
        why = " ".join(str(error).split())[:200]
        raise UnreadableError(path, f"is no CSV that can be read: {why}") from error
    return _rows_of(Dataset.from_pandas(table, preserve_index=False), path)


def _parquet(path: Path, _: Mapping[str, Any]) -> Iterator[Item]:
    import pyarrow as pa  # noqa: PLC0415 -- for such files alone
    import pyarrow.parquet as pq  # noqa: PLC0415

    try:
        with open_regular(path) as file:
            table = pq.read_table(file)
    except (pa.ArrowException, OSError) as error:
        why = " ".join(str(error).split())[:200]
        raise UnreadableError(path, f"is no Parquet file that can be read: {why}") from error
    # What else is noted there may turn values into pictures, or into files that are fetched.
    return _rows_of(Dataset(table.replace_schema_metadata(None)), path)


def _rows_of(table: Dataset, path: Path) -> Iterator[Item]:
    for number, row in enumerate(table, start=1):
        yield Item(dict(row), f"{path}, row {number}")


_READERS = {"json": _json, "csv": _csv, "parquet": _parquet}
assert tuple(_READERS) == BUILDERS  # noqa: S101 -- what is hashed is what is read


@contextmanager
def files_read_here() -> Iterator[None]:
    """Let lm-eval's tasks have the items of local files from here; others load as ever."""
    kind = lm_eval.api.task.ConfigurableTask
    fetch = kind.download

    def download(task: Any, dataset_kwargs: object = None, **more: object) -> None:  # noqa: ANN401 -- lm-eval has no types
        source = Path(str((task.config.metadata or {}).get("config_source", "")))
        local = task.config.dataset_path in BUILDERS and source.is_file()
        if local and not source.resolve().is_relative_to(LM_EVAL_TASKS):
            config = {
                "dataset_path": task.config.dataset_path,
                "dataset_kwargs": task.config.dataset_kwargs,
            }
            splits = read_local_splits(source.parent, config)
            task.dataset = {split: _table(items) for split, items in splits.items()}
        else:
            fetch(task, dataset_kwargs, **more)

    kind.download = download
    try:
        yield
    finally:
        kind.download = fetch


def _table(items: Sequence[Item]) -> Dataset:
    """Return items as lm-eval takes them, with every field that any of them has."""
    fields = dict.fromkeys(key for item in items for key in item.fields)
    return Dataset.from_dict({key: [item.fields.get(key) for item in items] for key in fields})
