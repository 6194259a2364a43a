"""Score the baseline a second time (A/A): whatever differs is noise, since nothing else changed.

A server batches requests differently each time, so the same questions are simply asked again, of
the same server (its cache may hold prompts, but never answers). The engine in this process would
compute the same sums twice, so it gets another batch size: other padding, another order of sums.
"""

import dataclasses
import shutil
from pathlib import Path

from harness.artifacts import Endpoint, Scorecard, Suite, TaskSpec, digest_of, made_from, save
from harness.score.elsewhere import Elsewhere
from harness.score.reference_lm import Answering
from harness.score.run import score
from harness.score.sources import Catalog

SHARE_FILE = "share.json"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class _Share:
    share: float


def score_again(
    served: Answering | Endpoint,
    suite: Suite,
    *,
    into: Path,
    share: float,
    elsewhere: Elsewhere | None = None,
) -> Scorecard:
    """Answer the first `share` of each task's items again and write them `into` a folder.

    Args:
        served: the model that was scored.
        suite: the suite that it was scored with.
        into: folder; tasks that an earlier run of the same share finished are not asked again.
        share: of each task's items, above 0 and at most 1.
        elsewhere: asks the tasks of another tool.

    Raises:
        ScoringError: as score().
        EngineError: as score().
    """
    asked = part_of(suite, share)
    if not isinstance(served, Endpoint):
        asked = dataclasses.replace(asked, batch_size=suite.batch_size // 2 or 2)
    asked_before = {"suite": suite.digest, "share": digest_of(share)}
    if into.exists() and made_from(into / SHARE_FILE) != asked_before:
        shutil.rmtree(into)
    into.mkdir(parents=True, exist_ok=True)
    save(_Share(share=share), into / SHARE_FILE, made_from=asked_before)
    return score(served, asked, arm="baseline", into=into, elsewhere=elsewhere)


def part_of(suite: Suite, share: float) -> Suite:
    """Return the suite with a share of the items of each task, from its beginning."""
    catalog = Catalog(suite.tasks_from)
    tasks = tuple(
        dataclasses.replace(
            spec, items=_items(spec, share, max(len(catalog.leaves(spec.asked)), 1))
        )
        for spec in suite.tasks
    )
    return dataclasses.replace(suite, tasks=tasks)


def _items(spec: TaskSpec, share: float, num_members: int) -> int:
    """Return how many items are asked: as many of each member of a group."""
    of_each = spec.items // num_members
    return max(round(share * of_each), 1) * num_members
