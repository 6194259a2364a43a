"""The samples of a task: as JSON lines, one answer a line, and by item."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol, TypeVar

from pydantic import TypeAdapter, ValidationError

from harness.artifacts.scores import Sample
from harness.artifacts.store import to_json
from harness.doors import write_atomically
from harness.errors import RunDirectoryError, UnreadableError
from harness.reading import iter_json_lines


class _OfItem(Protocol):
    """Whatever belongs to one item."""

    @property
    def doc_id(self) -> int: ...


_Answer = TypeVar("_Answer", bound=_OfItem)


def write_samples(samples: Iterable[Sample], path: Path) -> None:
    """Write `samples` so that `path` is complete or absent."""
    lines = [json.dumps(to_json(sample), allow_nan=False) for sample in samples]
    write_atomically(path, "".join(line + "\n" for line in lines))


def read_samples(path: Path) -> tuple[Sample, ...]:
    """Read what write_samples wrote.

    Raises:
        RunDirectoryError: the file is missing or a line of it is no sample.
    """
    adapter = TypeAdapter(Sample)
    samples: list[Sample] = []
    try:
        samples.extend(adapter.validate_python(line.value) for line in iter_json_lines(path))
    except (UnreadableError, ValidationError) as error:
        message = (
            f"'{path}', line {len(samples) + 1}: no sample can be read. "
            "Delete the file and score again."
        )
        raise RunDirectoryError(message) from error
    return tuple(samples)


def by_item(answers: Iterable[_Answer]) -> dict[int, list[_Answer]]:
    """Return the answers to each item, by its number, in the order in which they come."""
    found: dict[int, list[_Answer]] = {}
    for answer in answers:
        found.setdefault(answer.doc_id, []).append(answer)
    return found
