"""Rows of a nightly, as a ledger holds them: quiet cells, a loss, a sick host, a waived cell."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import date, timedelta
from math import sin

from harness.artifacts import (
    Alarm,
    AlarmCause,
    AlarmKind,
    CellEnding,
    CellWaiver,
    Decision,
    NightRow,
    Purpose,
    TaskNight,
    Tier,
)

FIRST = date(2031, 3, 1)
GIB = 1 << 30


def task_night(name: str = "gsm8k", *, candidate: float | None = 0.94) -> TaskNight:
    known = candidate is not None
    return TaskNight(
        task=name,
        tier=Tier.CRITICAL,
        baseline=0.945 if known else None,
        candidate=candidate,
        difference=candidate - 0.945 if candidate is not None else None,
        low=candidate - 0.945 - 0.009 if candidate is not None else None,
        high=candidate - 0.945 + 0.009 if candidate is not None else None,
        margin=0.02,
        num_items=1319,
        decision=Decision.GO,
    )


def night_row(cell: str = "qwen3-nvfp4-h200", night: int = 0, **changes: object) -> NightRow:
    day = (FIRST + timedelta(days=night)).isoformat()
    row = NightRow(
        cell=cell,
        night=day,
        attempt=1,
        purpose=Purpose.REGULAR,
        started=f"{day}T01:02:03Z",
        ended=f"{day}T02:02:03Z",
        ending=CellEnding.GO,
        exit_code=0,
        reason_codes=("non-inferior",),
        message="no critical task lost more than its margin",
        digests={"recipe": "ab" * 32, "checkpoint": "cd" * 32},
        host="node-1",
        gpu="NVIDIA H200 (sm_90)",
        harness="0.9.0 (1a2b3c4)",
        engine="vllm 0.33.0",
        run_dir=f"runs/{cell}/{day}",
        tasks=(task_night(), task_night("ifeval", candidate=0.93)),
        measures={
            "flip_rate": 0.021,
            "kld": 0.0123,
            "tokens_per_s": 2143.0,
            "memory_bytes": 21.5 * GIB,
            "load_s": 61.0,
            "answer_tokens": 212.0,
        },
    )
    return replace(row, **changes)  # type: ignore[arg-type]  # the fields vary by test


def failed_row(cell: str = "qwen3-nvfp4-h200", night: int = 0, **changes: object) -> NightRow:
    """Return a run that its machine ended."""
    row = night_row(cell, night, ending=CellEnding.INFRA_FAILED, exit_code=3, tasks=(), measures={})
    row = replace(row, reason_codes=("server-died",), message="the server died: GPU off the bus")
    return replace(row, **changes)  # type: ignore[arg-type]  # the fields vary by test


def three_weeks() -> list[NightRow]:
    """Return 21 nights of eight cells, each with something of its own."""
    return [row for night in range(21) for row in _night(night)]


def _night(night: int) -> Iterator[NightRow]:
    wave = 0.003 * sin(night * 2.1)
    for cell in ("canary-fp8-cpu", "olmoe-w4a16-h100", "qwen3-nvfp4-h200"):
        tasks = (task_night(candidate=0.942 + wave), task_night("ifeval", candidate=0.93 - wave))
        yield night_row(cell, night, tasks=tasks)
    yield _regressed(night, wave)
    drifting = 0.945 - 0.003 * max(night - 5, 0) + wave / 3
    yield night_row("gpt-oss-20b-mxfp8-h200", night, tasks=(task_night(candidate=drifting),))
    waiver = CellWaiver(reason="kernel bug 123", approver="A. Person", expires=date(2031, 4, 1))
    yield night_row(
        "gemma4-26b-nvfp4_experts_only-b200-with-a-long-name-nightly-tensor-parallel-4",
        night,
        waiver=waiver,
        ending=CellEnding.NO_GO if night % 2 == 0 else CellEnding.GO,
    )
    yield from _sick(night)
    ending = CellEnding.INCONCLUSIVE if night % 5 == 0 else CellEnding.NO_BASELINE
    yield night_row("nemotron3-nvfp4-gb200", night, ending=ending, message="too few items")


def _regressed(night: int, wave: float) -> NightRow:
    cell = "deepseek-v4-fp8_block-h200"
    if night < 14:
        return night_row(cell, night, tasks=(task_night(candidate=0.941 + wave),))
    row = night_row(cell, night, tasks=(task_night(candidate=0.88 + wave),), engine="vllm 0.34.0")
    return replace(row, ending=CellEnding.NO_GO, message="gsm8k lost 91 and won 5 of 1319 items")


def _sick(night: int) -> Iterator[NightRow]:
    cell = "granite-fp8-h100"
    if night % 4 == 3:
        yield failed_row(cell, night, host="node-7")
        again = failed_row(cell, night, host="node-7", attempt=2, purpose=Purpose.RETRY)
        yield again if night == 19 else night_row(cell, night, attempt=2, purpose=Purpose.RETRY)
    elif night != 20:
        yield night_row(cell, night)


def alarm(**changes: object) -> Alarm:
    one = Alarm(
        cell="deepseek-v4-fp8_block-h200",
        night="2031-03-15",
        kind=AlarmKind.LOSS,
        what="gsm8k",
        since="2031-03-15",
        cause=AlarmCause.REAL,
        message="-6.10 points against the anchor (-7.31 to -4.92), lost 91 and won 5 of 1319",
    )
    return replace(one, **changes)  # type: ignore[arg-type]  # the fields vary by test


def three_alarms() -> list[Alarm]:
    drift = alarm(cell="gpt-oss-20b-mxfp8-h200", kind=AlarmKind.DRIFT, since="2031-03-07")
    flaky = alarm(cell="qwen3-nvfp4-h200", what="tokens_per_s", cause=AlarmCause.FLAKY)
    open_one = alarm(cell="canary-fp8-cpu", what="ifeval", cause=AlarmCause.UNCONFIRMED)
    return [alarm(), drift, flaky, open_one]


NASTY = (
    '<script>window.ran = 1</script><img src=x onerror="window.ran = 1">"\'&\x00\x1b\ufffe{{ 7*7 }}'
)


def hostile_nights() -> tuple[list[NightRow], list[Alarm]]:
    """Return rows and alarms every text of which is an attack, or far too long."""
    long = "x" * 3000
    waiver = CellWaiver(reason=NASTY, approver=NASTY, expires=date(2031, 4, 1))
    tasks = (task_night(NASTY), task_night(long, candidate=1e300), task_night("nan"))
    attacked = {
        "message": NASTY,
        "host": NASTY,
        "gpu": NASTY,
        "engine": long,
        "harness": NASTY,
        "run_dir": f"{NASTY}/{long}",
        "reason_codes": (NASTY, long),
        "tasks": tasks,
        "measures": {NASTY: 1.0, long: -1e308, "kld": 1e308},
        "digests": {NASTY: "a"},
    }
    one = night_row(NASTY, 0, **attacked)
    two = night_row(NASTY, 1, **attacked | {"measures": {"kld": -1e308}, "engine": NASTY})
    three = replace(night_row(long, 0, **attacked), night=NASTY, waiver=waiver)
    named = alarm(cell=NASTY, night=NASTY, what=NASTY, since=NASTY, message=NASTY)
    return [one, two, three, failed_row("quiet", 1)], [named, alarm(cell=long, message=long)]
