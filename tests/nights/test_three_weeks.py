"""Three weeks of nights of twelve cells, each fault of which is found and named, and no other."""

import random
from dataclasses import replace
from pathlib import Path

import pytest

from harness.artifacts import AgainstAnchor, AlarmCause, AlarmKind, CellEnding, NightRow, Purpose
from harness.gate import beside
from harness.nights import Where, alarms, open_ledger, raised, sick_hosts
from tests.gate.arms import answers, make_arm
from tests.nights.rows import night_row
from tests.nouns import suite_of, task_spec

ITEMS, NIGHTS = 1000, 21
CELLS = ["regression", "drift", "flaky", *(f"quiet {n}" for n in range(9))]
HOSTS = ["h1", "h2", "h3", "sick"]
SUITE = suite_of(task_spec(items=ITEMS))


class Weeks:
    """The model of the cells: which items each answers wrongly in a night."""

    def __init__(self, seed: int) -> None:
        self.draws = random.Random(seed)  # noqa: S311  a test needs no secret
        self.unstable = {cell: self.draws.sample(range(200, ITEMS), 20) for cell in CELLS}
        self.anchors = {cell: self.values(cell, 0, 0) for cell in CELLS}

    def values(self, cell: str, night: int, attempt: int) -> list[float]:
        """Return the answers: one item in fifty is right or wrong by chance."""
        values = [1.0] * ITEMS
        for item in self.unstable[cell]:
            values[item] = float(self.draws.random() < 0.5)
        lost = 50 if cell == "regression" and night >= 9 else 0
        lost = 3 * night if cell == "drift" else lost
        lost = 60 if cell == "flaky" and night == 13 and attempt == 1 else lost
        return [0.0] * lost + values[lost:]

    def row(self, cell: str, night: int, attempt: int, host: str) -> NightRow:
        """Return the row of a run."""
        purpose = Purpose.REGULAR if attempt == 1 else Purpose.CONFIRMATION
        name = f"2031-01-{night:02}"
        if host == "sick" and self.draws.random() < 0.9:
            ending = CellEnding.INFRA_FAILED
            return night_row(cell, name, ending, host=host, attempt=attempt, purpose=purpose)
        before = make_arm("candidate", {"add": answers("add", self.anchors[cell])})
        after = make_arm("candidate", {"add": answers("add", self.values(cell, night, attempt))})
        (one,) = beside(SUITE, before, after).values()
        against = AgainstAnchor(anchor="a", what="add", noise=0.0035, **one._asdict())
        return replace(
            night_row(cell, name, host=host, attempt=attempt, purpose=purpose), against=(against,)
        )


def rows_of(seed: int, nights: int = NIGHTS) -> list[NightRow]:
    """Run every cell every night, and each alarm again until it is settled."""
    weeks, rows = Weeks(seed), []
    for night in range(1, nights + 1):
        rows += [weeks.row(cell, night, 1, weeks.draws.choice(HOSTS)) for cell in CELLS]
        for attempt in (2, 3):
            tonight = [a for a in raised(rows) if a.row.night == rows[-1].night and a.ask]
            for one in tonight:
                others = [host for host in HOSTS if host != one.row.host]
                host = one.row.host if one.ask is Where.SAME_HOST else weeks.draws.choice(others)
                rows.append(weeks.row(one.alarm.cell, night, attempt, host))
    return rows


@pytest.fixture(scope="module")
def rows() -> list[NightRow]:
    return rows_of(seed=3)


def test_the_regression_is_told_in_its_night_as_real(rows: list[NightRow]) -> None:
    first = next(a for a in alarms(rows) if a.cell == "regression")
    assert (first.kind, first.cause) == (AlarmKind.LOSS, AlarmCause.REAL)
    assert first.night in {"2031-01-09", "2031-01-10"}


def test_the_slow_drift_is_told_within_the_first_week_or_two(rows: list[NightRow]) -> None:
    real = [a for a in alarms(rows) if a.cell == "drift" and a.cause is AlarmCause.REAL]
    assert real[0].night <= "2031-01-14"
    assert real[0].since <= real[0].night


def test_the_flaky_cell_is_named_flaky(rows: list[NightRow]) -> None:
    found = {(a.night, a.cause) for a in alarms(rows) if a.cell == "flaky"}
    assert found <= {("2031-01-13", AlarmCause.FLAKY), ("2031-01-13", AlarmCause.INFRASTRUCTURE)}
    assert found


def test_the_sick_host_is_named_and_no_other(rows: list[NightRow]) -> None:
    (found,) = sick_hosts(rows)
    assert found.host == "sick"


def test_no_quiet_cell_is_told(rows: list[NightRow]) -> None:
    assert [a for a in alarms(rows) if a.cell.startswith("quiet")] == []


def test_the_same_is_read_from_the_ledger(rows: list[NightRow], tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path)
    for row in rows[:40]:
        ledger.append(row)
    assert alarms(ledger.rows()) == alarms(rows[:40])
