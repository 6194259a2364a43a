"""Three weeks: hosts run cells, ledgers are merged, alarms are run again."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import NamedTuple

import numpy as np

from harness.artifacts import CellWaiver, NightRow, Purpose
from harness.errors import ExitCode
from harness.nights import (
    CellRun,
    Ledger,
    Raised,
    Where,
    exit_code_of_night,
    open_ledger,
    raised,
    row_of_run,
    set_anchor,
    sick_hosts,
)
from harness.preflight import Job
from scripts.three_weeks.planted import (
    HOSTS,
    OTHERS_FAIL,
    SICK,
    SICK_FAILS,
    SICK_SINCE,
    DrawnCell,
    Plan,
)
from scripts.three_weeks.runs import failed, ran

_FIRST = date(2031, 3, 1)
_MOST_RERUNS = 4
"""Of one alarm in one night."""
_WATCHED = 14
"""Nights of which failures are counted by host, as in a nightly."""
_WAIVER = CellWaiver(reason="known since March", approver="A. Reviewer", expires=date(2099, 1, 1))


def name_of(night: int) -> str:
    """Return the name of a night, from 1."""
    return (_FIRST + timedelta(days=night - 1)).isoformat()


def number_of(night: str) -> int:
    """Return the number of a night, from 1."""
    return (date.fromisoformat(night) - _FIRST).days + 1


class NightEnd(NamedTuple):
    """What a night came to, as it was told in its morning."""

    exit_code: ExitCode
    is_all_go: bool
    """Whether the last attempt of every cell without a waiver ended GO."""
    sick: tuple[str, ...]
    """Hosts that are named."""


@dataclass(frozen=True, slots=True)
class Weeks:
    """What three weeks left."""

    rows: tuple[NightRow, ...]
    nights: tuple[NightEnd, ...]
    raised: tuple[Raised, ...]
    num_written: int
    """Rows that the hosts wrote."""
    bad_nights: Mapping[str, int]
    """In which each flaky cell was bad."""


@dataclass(slots=True)
class Nightly:
    """A nightly over several hosts, each with a ledger of its own, and one that gathers them."""

    folder: Path
    job: Job
    plans: Sequence[Plan]
    draws: np.random.Generator
    cells: dict[str, DrawnCell] = field(default_factory=dict)
    num_written: int = 0

    @property
    def ledger(self) -> Ledger:
        """The one that gathers all."""
        return open_ledger(self.folder / "all")

    def sign_off(self) -> None:
        """Run every cell once; but for waived ones, that run is its anchor."""
        for plan in self.plans:
            cell = self.cells[plan.name] = DrawnCell(plan, self.draws)
            into = self._run_dir(plan.name, 0, "signed-off")
            ran(self.job, into, cell, 0)
            if not plan.waived:
                set_anchor(plan.name, into, self.ledger.folder)

    def run(self, num_nights: int) -> Weeks:
        """Run all nights."""
        self.sign_off()
        nights = tuple(self._night(number) for number in range(1, num_nights + 1))
        rows = self.ledger.rows()
        bad = {name: one.bad_night for name, one in self.cells.items() if one.bad_night}
        return Weeks(rows, nights, raised(rows), self.num_written, bad)

    def _night(self, number: int) -> NightEnd:
        last = {plan.name: self._attempts(plan, number) for plan in self.plans}
        rows = self._gathered()
        for _ in range(_MOST_RERUNS):
            asked = list(_asked(rows, name_of(number)))
            if not asked:
                break
            for one, where in asked:
                self._confirm(one, where, number)
            rows = self._gathered()
        return NightEnd(
            exit_code=exit_code_of_night(rows, [plan.name for plan in self.plans], name_of(number)),
            is_all_go=all(not last[p.name] for p in self.plans if not p.waived),
            sick=tuple(
                found.host
                for found in sick_hosts(r for r in rows if number - number_of(r.night) < _WATCHED)
            ),
        )

    def _attempts(self, plan: Plan, number: int) -> ExitCode:
        """Run a cell, and again on another machine where its server died."""
        into = self._run_dir(plan.name, number, "run")
        hosts = [str(host) for host in self.draws.choice(HOSTS, size=2, replace=False)]
        code = ExitCode.BUG
        for attempt, (host, purpose) in enumerate(
            zip(hosts, (Purpose.REGULAR, Purpose.RETRY), strict=True), start=1
        ):
            code = self._one(plan, number, into, host, (attempt, purpose))
            if code != ExitCode.STAGE_FAILED:
                break
        return code

    def _confirm(self, one: Raised, where: Where, number: int) -> None:
        """Run a cell again where its alarm asks for it."""
        plan = next(plan for plan in self.plans if plan.name == one.row.cell)
        same = [row for row in self.ledger.rows() if row.night == one.row.night]
        attempt = 1 + max(row.attempt for row in same if row.cell == plan.name)
        others = [host for host in HOSTS if host != one.row.host]
        host = one.row.host if where is Where.SAME_HOST else str(self.draws.choice(others))
        into = self._run_dir(plan.name, number, f"again-{attempt}")
        self._one(plan, number, into, host, (attempt, Purpose.CONFIRMATION))

    def _one(
        self, plan: Plan, number: int, into: Path, host: str, order: tuple[int, Purpose]
    ) -> ExitCode:
        """Run a cell once on a host, and add its row to that host's ledger."""
        attempt, purpose = order
        if self.draws.random() < _failures(host, number):
            code = failed(self.job, into)
        else:
            is_regular = purpose is Purpose.REGULAR
            code = ran(self.job, into, self.cells[plan.name], number, is_regular=is_regular)
        run = CellRun(
            cell=plan.name,
            night=name_of(number),
            attempt=attempt,
            purpose=purpose,
            exit_code=code,
            started=f"{name_of(number)}T01:00:00Z",
            ended=f"{name_of(number)}T02:00:00Z",
            host=host,
            waiver=_WAIVER if plan.waived else None,
        )
        row = row_of_run(into, run, ledger=self.ledger.folder)
        self.num_written += open_ledger(self.folder / host).append(row)
        return code

    def _gathered(self) -> tuple[NightRow, ...]:
        for host in HOSTS:
            if open_ledger(self.folder / host).exists:
                self.ledger.merge(self.folder / host)
        return self.ledger.rows()

    def _run_dir(self, cell: str, number: int, what: str) -> Path:
        return self.folder / "nights" / str(number) / cell / what


def first_named(nights: Sequence[NightEnd]) -> Mapping[str, int]:
    """Return the night in which each host was first named."""
    found: dict[str, int] = {}
    for number, night in enumerate(nights, start=1):
        for host in night.sick:
            found.setdefault(host, number)
    return found


def _asked(rows: Sequence[NightRow], night: str) -> Iterator[tuple[Raised, Where]]:
    """Yield what is to be run again in a night: a cell once, whatever it alarmed of."""
    asked: set[str] = set()
    for one in raised(rows):
        if one.row.night == night and one.ask is not None and one.row.cell not in asked:
            asked.add(one.row.cell)
            yield one, one.ask


def _failures(host: str, night: int) -> float:
    """Return the chance that a run on a host dies."""
    return SICK_FAILS if host == SICK and night >= SICK_SINCE else OTHERS_FAIL
