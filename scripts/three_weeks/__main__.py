"""Print what was planted and what was found, for several draws."""

import argparse
import gc
import logging
import shutil
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from statistics import median

import numpy as np

from harness.preflight import Job
from harness.report import write_trend
from scripts import ledger
from scripts.three_weeks.found import Line, lines_of, wrong_with
from scripts.three_weeks.planted import NUM_NIGHTS, PLANS
from scripts.three_weeks.runs import job_of
from scripts.three_weeks.weeks import Nightly, Weeks

COMMAND = "python -m scripts.three_weeks --record"
SEED, NUM_DRAWS = 21, 5
HEAD = (
    "| draw | cell or host | planted | found | delay in nights |\n| --- | --- | --- | --- | --- |"
)


def main() -> int:
    """Draw three weeks several times, and fail if anything was missed or falsely told."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--record", action="store_true")
    parser.add_argument("--draws", type=int, default=NUM_DRAWS)
    parser.add_argument("--jobs", type=int, default=1, help="draws at a time")
    parser.add_argument("--trend", type=Path, help="folder that gets the first draw's page")
    arguments = parser.parse_args()
    logging.getLogger("harness").setLevel(logging.ERROR)
    job = job_of()
    gc.freeze()  # every stage collects garbage, and what was imported is none
    print(HEAD)
    drawn: list[list[Line]] = []
    others: list[str] = []
    num_rows = 0
    with ProcessPoolExecutor(arguments.jobs, mp_context=get_context("fork")) as pool:
        every = pool.map(partial(draw, job), range(arguments.draws))
        for seed, weeks in enumerate(every):
            drawn.append(list(lines_of(weeks, PLANS)))
            others += [f"draw {seed}: {why}" for why in wrong_with(weeks, PLANS)]
            num_rows += len(weeks.rows)
            _show(seed, drawn[-1])
            if arguments.trend and seed == 0:
                _write_page(weeks, arguments.trend)
    values = summary(drawn, num_rows) | {"anything else wrong": "; ".join(others) or "nothing"}
    for name, value in values.items():
        print(f"{name}: {value}")
    if arguments.record:
        ledger.append("Three weeks of ten cells with four faults", command=COMMAND, values=values)
    return int(bool(others) or any(line.wrong for lines in drawn for line in lines))


def draw(job: Job, seed: int) -> Weeks:
    """Draw three weeks, and run their nights."""
    folder = Path(tempfile.mkdtemp(prefix="three-weeks-"))
    try:
        return Nightly(folder, job, PLANS, np.random.default_rng([SEED, seed])).run(NUM_NIGHTS)
    finally:
        shutil.rmtree(folder)


def summary(drawn: Sequence[Sequence[Line]], num_rows: int) -> dict[str, str]:
    """Return what all draws came to."""
    lines = [line for each in drawn for line in each]
    values = {"draws, each of ten cells in 21 nights on four hosts": f"{len(drawn)}"}
    values["rows, of which none was lost or doubled"] = f"{num_rows}"
    for number, line in enumerate(drawn[0]):
        each = [one[number] for one in drawn]
        if not any(one.delay is not None or "missed" in one.wrong for one in each):
            continue
        delays = [one.delay for one in each if one.delay is not None and not one.wrong]
        late = f", {median(delays):g} nights late ({min(delays)} to {max(delays)})"
        said = f"found and named in {len(delays)} of {len(each)}{late if delays else ''}"
        values[f"{line.what}: {line.planted}"] = said
    quiet = [line for line in lines if line.delay is None and "missed" not in line.wrong]
    told = sum(bool(line.wrong) for line in quiet)
    values["quiet cells that were told to be worse"] = f"{told} of {len(quiet)}"
    taken_back = sum(line.by_chance for line in quiet)
    values["alarms of quiet cells that their reruns took back, told to nobody"] = f"{taken_back}"
    return values


def _show(seed: int, lines: Sequence[Line]) -> None:
    for line in lines:
        found = f"{line.found} WRONG: {line.wrong}" if line.wrong else line.found
        delay = "" if line.delay is None else f"{line.delay}"
        print(f"| {seed} | {line.what} | {line.planted} | {found} | {delay} |", flush=True)


def _write_page(weeks: Weeks, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_trend(weeks.rows, [one.alarm for one in weeks.raised], folder)


if __name__ == "__main__":
    sys.exit(main())
