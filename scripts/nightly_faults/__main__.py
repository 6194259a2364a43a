"""Disturb nightlies, and say what was lost or left."""

import argparse
import gc
import os
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

from harness.artifacts import CellEnding
from scripts import ledger
from scripts.nightly_faults.disk import can_mount
from scripts.nightly_faults.disturb import Disturber, full_disk
from scripts.nightly_faults.processes import WORKER
from scripts.nightly_faults.stage import Stage

COMMAND = "python -m scripts.nightly_faults"
SEED, NUM_KILLS, NUM_OTHERS = 21, 60, 6


class Night(NamedTuple):
    """What was left of a disturbed night."""

    num_rows: int
    num_retries: int
    wrong: tuple[str, ...]


def main() -> int:
    """Disturb nightlies in every way."""
    arguments = _arguments()
    draws = random.Random(SEED)  # noqa: S311 - no secret
    with tempfile.TemporaryDirectory(prefix="nightly-faults-") as folder:
        os.environ["TMPDIR"] = folder  # what is killed leaves its temporary folders there
        stage = Stage(Path(folder, "nights"))
        gc.freeze()
        seconds, verdicts = stage.undisturbed("undisturbed")
        print(f"an undisturbed night: {seconds:.1f} s", flush=True)
        disturber = Disturber(stage, draws, seconds, most_kills=arguments.kills)
        values: dict[str, str] = {}
        wrong: list[str] = []
        for name, nights in _ways(disturber, verdicts, arguments):
            found = list(nights)
            values[name] = _said(found)
            wrong += [f"{name}: {why}" for night in found for why in night.wrong]
            print(f"{name}: {values[name]}", flush=True)
        values["killed"] = ", ".join(f"{n} x {kind}" for kind, n in disturber.killed.items())
        values["wrong"] = "; ".join(wrong) or "nothing"
        print(f"killed: {values['killed']}\nwrong: {values['wrong']}")
    if arguments.record:
        options = "".join(f" {word}" for word in sys.argv[1:])
        ledger.append(
            "Nightlies of simulated cells: killed, without room, doubled, set back",
            command=COMMAND + options,
            values=values,
        )
    return int(bool(wrong))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--record", action="store_true")
    parser.add_argument("--kills", type=int, default=NUM_KILLS)
    parser.add_argument("--others", type=int, default=NUM_OTHERS, help="nights of each other way")
    parser.add_argument("--ray", default="", metavar="URL", help="kill workers of this cluster")
    return parser.parse_args()


def _ways(
    disturber: Disturber, verdicts: dict[str, str], arguments: argparse.Namespace
) -> Iterator[tuple[str, Iterator[Night]]]:
    """Yield each way of disturbing, with its nights."""
    stage, others = disturber.stage, arguments.others

    def nights(name: str, number: int, disturb: Callable[[str], int]) -> Iterator[Night]:
        for count in range(number):
            night = f"{name}-{count:03}"
            yield _left(stage, night, disturb(night), verdicts)

    if arguments.ray:
        disturber.kinds, disturber.killed = (WORKER,), Counter()
        on_ray = partial(disturber.on_ray, address=arguments.ray)
        yield "a worker of Ray killed", nights("ray", arguments.kills, on_ray)
        return
    kills = _until_killed(disturber, verdicts)
    yield f"{arguments.kills} kills at random times, up to two a night", kills
    yield "two nightlies of one night on one ledger", nights("twice", others, disturber.twice)
    yield "the clock set back by two years", nights("clock", others, disturber.clock_back)
    full = _full_disks(disturber, verdicts, others if can_mount() else 0)
    yield "a disk that is full (tmpfs)", full
    yield "a server's port taken", nights("port", others, disturber.port_taken)


def _until_killed(disturber: Disturber, verdicts: dict[str, str]) -> Iterator[Night]:
    count = 0
    while disturber.killed.total() < disturber.most_kills:
        night, count = f"kill-{count:03}", count + 1
        found = _left(disturber.stage, night, disturber.kill_some(night), verdicts)
        print(f"{night} {dict(disturber.killed)} {found}", file=sys.stderr, flush=True)
        yield found


def _full_disks(disturber: Disturber, verdicts: dict[str, str], number: int) -> Iterator[Night]:
    for count in range(number):
        night, stage = f"disk-{count:03}", disturber.stage
        with full_disk(stage, stage.folder / night, night, disturber.draws) as (small, code):
            yield _left(small, night, code, verdicts)


def _left(stage: Stage, night: str, code: int, verdicts: dict[str, str]) -> Night:
    """Return what a night left; an undisturbed one ends with 0."""
    wrong = [f"{night}: {why}" for why in stage.wrong_with(night, verdicts)]
    if code:
        wrong.append(f"{night} ended with {code}: {stage.said(night)}")
    ran = [row for row in stage.rows(night) if row.ending is not CellEnding.NOT_RUN]
    return Night(len(ran), sum(row.attempt > 1 for row in ran), tuple(wrong))


def _said(nights: list[Night]) -> str:
    rows, retries = sum(n.num_rows for n in nights), sum(n.num_retries for n in nights)
    wrong = sum(bool(n.wrong) for n in nights)
    return f"{len(nights)} nights, {rows} rows ({retries} of retries), {wrong} nights wrong"


if __name__ == "__main__":
    sys.exit(main())
