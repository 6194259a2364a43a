"""Items that the arms answered differently, for a person to read."""

from harness.artifacts import Flip
from harness.gate.pairs import TaskPairs

_MAX_FLIPS = 50


def choose_flips(paired: tuple[TaskPairs, ...]) -> tuple[Flip, ...]:
    """Return at most 50 flips: lost ones first, and each task in turn so that none hides.

    Log-likelihoods hardly ever agree, so documents of a perplexity are none.
    """
    paired = tuple(task for task in paired if not task.is_perplexity)
    flips = [*_in_turn(paired, lost=True), *_in_turn(paired, lost=False)]
    return tuple(flips[:_MAX_FLIPS])


def _in_turn(paired: tuple[TaskPairs, ...], *, lost: bool) -> list[Flip]:
    ranked = [
        (rank, flip) for task in paired for rank, flip in enumerate(_of_task(task, lost=lost))
    ]
    return [flip for _, flip in sorted(ranked, key=lambda entry: entry[0])]


def _of_task(task: TaskPairs, *, lost: bool) -> list[Flip]:
    return [
        Flip(
            task=task.spec.name,
            doc_id=pair.baseline.doc_id,
            prompt=pair.baseline.prompt,
            target=pair.baseline.target,
            baseline=pair.baseline.answer,
            candidate=pair.candidate.answer,
            lost=lost,
        )
        for pair in (item.shown(lost=lost) for item in (task.lost if lost else task.won))
    ]
