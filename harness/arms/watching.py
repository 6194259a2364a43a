"""Watching the candidate's answers while it is asked, beside those of the baseline that are there.

Critical tasks come first, those first that need the least time to show a ruined candidate. A task
that the baseline has not answered yet is looked at when it has; an end rests on what both have
answered, and is judged again, from the records, by the gate.
"""

import time
from collections.abc import Sequence
from pathlib import Path

from harness import score
from harness.artifacts import EarlyEnd, Sample, Suite, TaskSpec, Tier
from harness.gate import items_to_decide, look, looks_of

_CHOICES = 4
"""What the options of a question cost, in tokens of an answer."""


class BaselineWatch:
    """Compares what the candidate answers with what the baseline has answered."""

    def __init__(self, suite: Suite, baseline: Sequence[Path]) -> None:
        """Begin to count the time.

        Args:
            suite: what is asked.
            baseline: folders where its answers lie, or appear while it is measured.
        """
        self._suite = suite
        self._folders = baseline
        self._budgets = score.answer_budgets(suite)
        self._began = time.monotonic()
        self._asked: dict[str, tuple[TaskSpec, tuple[Sample, ...], tuple[int, ...]]] = {}
        self._settled: set[str] = set()

    def order(self, tasks: Sequence[Sequence[TaskSpec]]) -> list[Sequence[TaskSpec]]:
        """Return critical tasks first, those first that decide in the least time."""
        confidence = self._suite.confidence

        def seconds(spec: TaskSpec) -> tuple[bool, float]:
            share = items_to_decide(spec, confidence) / spec.items
            return spec.tier is not Tier.CRITICAL, share * self._cost(spec)

        return sorted(tasks, key=lambda specs: min(map(seconds, specs)))

    def looks(self, specs: Sequence[TaskSpec]) -> tuple[int, ...]:
        """Return after how many items it looks, before the last one."""
        return max(map(looks_of, specs), key=len)

    def see(
        self, spec: TaskSpec, samples: Sequence[Sample], looks: Sequence[int]
    ) -> EarlyEnd | None:
        """Return the end, if a critical task is known not to be GO."""
        self._asked[spec.name] = spec, tuple(samples), tuple(looks)
        for name in self._asked:
            if name not in self._settled and (end := self._look(name)) is not None:
                return end
        return None

    def _look(self, name: str) -> EarlyEnd | None:
        spec, samples, looks = self._asked[name]
        if spec.tier is not Tier.CRITICAL:
            return None
        known = next((s for f in self._folders if (s := score.finished_samples(f, name))), ())
        if not known:
            return None
        items = sorted({sample.doc_id for sample in samples})
        why = look(spec, self._suite, known, samples, looks)
        if why is None:
            if len(items) == spec.items:
                self._settled.add(name)
            return None
        return EarlyEnd(
            task=name,
            why=why,
            items=tuple(items),
            share=self._share(),
            seconds=time.monotonic() - self._began,
        )

    def _share(self) -> float:
        asked = sum(
            self._cost(spec) * len({s.doc_id for s in samples}) / spec.items
            for spec, samples, _ in self._asked.values()
        )
        return asked / sum(self._cost(spec) for spec in self._suite.tasks)

    def _cost(self, spec: TaskSpec) -> float:
        return spec.items * spec.repeats * (self._budgets[spec.name] or _CHOICES)
