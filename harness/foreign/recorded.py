"""What another tool recorded of one arm, in that tool's own words but in one shape.

A reader of one tool turns its files into these; from here on nothing knows which tool it was.
Values of metrics are kept as they were found, so that one which is no number is refused by name
and never read as a wrong answer.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from harness.artifacts import Gap, digest_of
from harness.reading import bounds


class Metric(NamedTuple):
    """A number that a tool gives each answer."""

    name: str
    """Such as `exact_match`, or the name of a scorer."""
    filter: str = "none"
    """How the answer was taken out of the text; `none` where the tool knows no such thing."""

    def __str__(self) -> str:
        return self.name if self.filter == "none" else f"{self.name} (filter {self.filter})"


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """One answer to one item."""

    item: str
    """As the tool names it within the task."""
    repeat: int = 0
    """From 0 on, where an item is asked several times."""
    doc_hash: str = ""
    """Empty where the tool keeps no item beside its prompt."""
    prompt_hash: str
    target_hash: str
    prompt: str
    target: str
    answer: str
    finish: str
    """`stop`, `length`, `error`, `scored`, or `unknown` where the tool does not record it."""
    num_tokens: int | None = None
    """All that was generated, where it was counted."""
    values: Mapping[Metric, object]
    fields: Mapping[str, object]
    """Of the item, such as its subject."""


def by_item(answer: Answer) -> tuple[int, str, int]:
    """Return where an answer stands: by number where items are numbered."""
    return (whole_number(answer.item) or 0, answer.item, answer.repeat)


def whole_number(text: str) -> int | None:
    """Return the number that a text of digits is; None where it is none, or beyond any."""
    return int(text) if len(text) <= bounds.DIGITS and text.isdecimal() else None


@dataclass(frozen=True, kw_only=True, slots=True)
class RecordedTask:
    """One task that an arm answered."""

    name: str
    answers: tuple[Answer, ...]
    """Ordered by item, then repeat."""
    metrics: tuple[Metric, ...]
    """In the tool's order: the first is the one that it reports first."""
    conditions: Mapping[str, object]
    """What must be equal in both arms, by what a person would call it."""
    chance: float = 0.0
    """Accuracy of guessing."""
    num_cut: int | None = None
    """Answers that ended at their budget, where they were counted and not which."""
    higher_is_better: Mapping[str, bool] = field(default_factory=dict)
    """Which way a metric runs, by its name; absent where the tool does not say it."""
    left_out: str = ""
    """Why items of the task were not asked, such as `10 of 1319 items were asked (limit 10)`."""

    @property
    def num_items(self) -> int:
        """Return how many items were asked."""
        return len({answer.item for answer in self.answers})


class Exported(NamedTuple):
    """Whose scores harness wrote in a tool's layout."""

    scorecard: str
    """Digest of the arm's scorecard."""
    checkpoint: str
    """Digest of the files that answered; empty where somebody else's server did."""


def digest_of_told(*values: object) -> str:
    """Return the digest of values as a tool wrote them, in which numbers may be infinite."""
    return digest_of(json.dumps(values, sort_keys=True))


def checkpoint_of(served: object) -> str:
    """Return the digest of the files that a deployment of ours served, as harness wrote it down."""
    if not isinstance(served, dict) or served.get("address"):
        return ""
    return str(served.get("checkpoint_digest") or "")


@dataclass(frozen=True, kw_only=True, slots=True)
class Recorded:
    """One arm as another tool recorded it."""

    tool: str
    """Such as `lm-eval`."""
    version: str
    place: str
    """File or folder."""
    model: str
    """As the tool was told it."""
    identity: str
    """What the tool says of which model answered: two arms with the same are one. Empty where it
    says too little, such as an address behind which a model may be exchanged."""
    loaded: str = ""
    """Folder or repository whose weights the tool loaded as they are; empty where an address, or
    an argument, leaves open which weights answered."""
    runs: frozenset[str]
    """What each run that was read is told by: two arms that share one hold the same run."""
    scorer: str
    """What computed the metrics: the tool itself, or a tool that it ran."""
    engine: str
    """What answered, as far as it is recorded."""
    scorer_version: str = ""
    """Where that is another tool than wrote the records."""
    dtype: str = ""
    device: str = ""
    tasks: tuple[RecordedTask, ...]
    groups: Mapping[str, tuple[str, ...]]
    """Tasks that are one to the tool, by the group's name; those of groups in it included."""
    gaps: tuple[Gap, ...]
    exported: Exported | None = None
    """Where harness wrote the records itself (`report --as`)."""
    notes: tuple[str, ...] = ()
    """What a reader of the verdict must know of how the files were read."""

    def members(self, name: str) -> tuple[RecordedTask, ...]:
        """Return the tasks that `name` stands for; none where the arm has no such task."""
        names = self.groups.get(name, (name,))
        found = {task.name: task for task in self.tasks}
        return tuple(found[one] for one in names) if all(n in found for n in names) else ()
