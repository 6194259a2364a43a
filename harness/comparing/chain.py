"""Which of all that differs could have made what came out differ: the shortest list.

Parts of a run depend on each other: rules make a plan, the plan and calibration make a checkpoint,
the checkpoint and the engine make answers. A part that differs because one that it is made from
does is explained, so only the first of each way is a cause. A part that differs and from which
every way to the outcome leads through something that is the same in both runs is none: rules that
make the same plan changed nothing. A part that a run does not record stops no way, and is no cause.
"""

from collections.abc import Iterator, Mapping, Sequence

from harness.artifacts import Cause, Difference, Part

_INSTALLED = (Part.VERSIONS, Part.ENVIRONMENT)
_ASKED = (Part.PROMPTS, Part.CHECKPOINT, Part.KERNELS, Part.ARGUMENTS, Part.ENGINE, Part.HARDWARE)
_RUN_ON = (*_INSTALLED, Part.HOST)
_MADE_FROM: Mapping[Part, tuple[Part, ...]] = {
    Part.PROMPTS: (Part.QUESTIONS, Part.CHECKPOINT, *_INSTALLED),
    Part.PLAN: (Part.RECIPE, Part.MODEL, Part.VERSIONS),
    Part.STATS: (Part.PLAN, Part.CALIBRATION, Part.MODEL, *_RUN_ON),
    Part.CHECKPOINT: (Part.PLAN, Part.STATS, Part.MODEL, *_RUN_ON),
    Part.KERNELS: (Part.CHECKPOINT, Part.ARGUMENTS, Part.ENGINE, Part.HARDWARE),
    Part.ENVIRONMENT: (Part.VERSIONS,),
    Part.ANSWERS: (*_ASKED, Part.QUESTIONS, *_RUN_ON),
    Part.CHECKS: (*_ASKED, Part.MODEL, *_RUN_ON),
    Part.BASELINE: tuple(p for p in (*_ASKED, Part.MODEL, *_RUN_ON) if p != Part.CHECKPOINT),
    Part.ENDING: (Part.ANSWERS, Part.CHECKS, Part.BASELINE, Part.JUDGING),
}
OUTCOMES = (Part.ANSWERS, Part.CHECKS, Part.BASELINE, Part.ENDING)
"""What comes out of a run: explained, and no explanation."""
_MAKING = (Part.PLAN, Part.STATS, Part.RECIPE, Part.CALIBRATION)
"""Of a checkpoint that the run itself makes."""
_EARLY = (*_ASKED, *_MAKING, Part.MODEL, *_RUN_ON, Part.QUESTIONS)
"""Any of these may end a run in a failure."""


class Chain:
    """How the parts of two runs depend on each other, and which of them differ."""

    def __init__(
        self, differing: Mapping[Part, bool | None], *, is_made: bool, has_failed: bool
    ) -> None:
        """Keep what is known.

        Args:
            differing: whether each part differs; None where a run does not record it.
            is_made: whether both runs made their checkpoints.
            has_failed: whether one of them failed before a verdict.
        """
        self._differing = differing
        self._is_made = is_made
        self._has_failed = has_failed

    def parents(self, part: Part) -> tuple[Part, ...]:
        """Return what a part is made from."""
        parents = _MADE_FROM.get(part, ())
        if part is Part.CHECKPOINT and not self._is_made:
            return ()  # whoever made them, from whatever
        if part is Part.ENDING and self._has_failed:
            return (*parents, *_EARLY)
        return parents

    def ways(self, outcomes: Sequence[Part]) -> list[tuple[Part, ...]]:
        """Return the ways from the first parts that differ to what came out, that included."""
        found = (way for outcome in outcomes for way in self._ways(outcome, ()))
        return list(dict.fromkeys(found))

    def _ways(self, part: Part, after: tuple[Part, ...]) -> Iterator[tuple[Part, ...]]:
        """Yield each way on which only what differs, or is not known, lies."""
        way = (part, *after)
        found = False
        for parent in self.parents(part):
            if self._differing.get(parent) is False or parent in way:
                continue
            for longer in self._ways(parent, way):
                found = True
                yield longer
        if not found and part not in OUTCOMES and self._differing.get(part):
            yield way


def causes(
    ways: Sequence[tuple[Part, ...]], differences: Sequence[Difference]
) -> tuple[Cause, ...]:
    """Return the first part of each way, the most direct first."""
    first: dict[Part, tuple[Part, ...]] = {}
    for way in ways:
        first.setdefault(way[0], way[1:])
    return tuple(
        Cause(
            part=part,
            differences=tuple(d for d in differences if d.part is part),
            through=tuple(p for p in first[part] if p is not Part.ENDING),
        )
        for part in Part
        if part in first
    )
