"""What reruns on the same bytes and environment make of an alarm: real, flaky or infrastructure.

| seen again on the same host | on another host | cause |
|---|---|---|
| any or not asked | yes | real |
| yes | not asked | real; infrastructure where failures pile up on that host |
| yes | no | infrastructure: the host |
| no | not asked | flaky; infrastructure after a run that failed on that host in that night |
| not asked | no | infrastructure |
| no | no | flaky |

A rerun of other bytes confirms nothing. Where two reruns ended without an answer, that is
infrastructure, and is told: an alarm that cannot be confirmed is not forgotten.
"""

from collections.abc import Callable, Iterable, Sequence
from enum import StrEnum
from typing import NamedTuple

from harness.artifacts import AlarmCause, CellEnding, NightRow, Purpose

_SAME = ("checkpoint", "recipe", "suite", "engine", "versions", "image", "environment")
_MOST_WITHOUT_ANSWER = 2


class Where(StrEnum):
    """Where an alarm is to be run again next."""

    SAME_HOST = "the same host"
    OTHER_HOST = "another host"


class Confirmed(NamedTuple):
    """What reruns made of an alarm."""

    cause: AlarmCause
    why: str
    ask: Where | None
    """Which rerun would tell more; None where it is settled."""


def confirm(
    alarmed: NightRow,
    night: Sequence[NightRow],
    seen: Callable[[NightRow], bool | None],
    *,
    is_suspect: bool = False,
) -> Confirmed:
    """Return the cause of an alarm.

    Args:
        alarmed: the run that raised it.
        night: all rows of its cell and night.
        seen: whether a rerun shows it again; None where it has no answer to that.
        is_suspect: whether failures pile up on the alarm's host.
    """
    reruns = [row for row in night if row.purpose is Purpose.CONFIRMATION and row.host]
    alike = [row for row in reruns if is_same(row, alarmed)]
    if not alike:
        why = "the rerun had other bytes or another environment" if reruns else "not run again yet"
        return Confirmed(AlarmCause.UNCONFIRMED, why, Where.SAME_HOST)
    answers = [(row.host, shown) for row in alike if (shown := seen(row)) is not None]
    if not answers:
        settled = len(alike) >= _MOST_WITHOUT_ANSWER
        cause = AlarmCause.INFRASTRUCTURE if settled else AlarmCause.UNCONFIRMED
        why = f"run again {len(alike)} times, without an answer: {alike[-1].message}"
        return Confirmed(cause, why, None if settled else Where.SAME_HOST)
    same = _again(shown for host, shown in answers if host == alarmed.host)
    other = _again(shown for host, shown in answers if host != alarmed.host)
    hosts = ", ".join(sorted({host for host, _ in answers if host != alarmed.host}))
    if other is not None:
        return _elsewhere(alarmed.host, hosts, is_same_seen=same, is_other_seen=other)
    failed = any(r.ending is CellEnding.INFRA_FAILED and r.host == alarmed.host for r in night)
    return _here(alarmed.host, is_seen=bool(same), is_suspect=is_suspect, has_failed=failed)


def is_same(one: NightRow, other: NightRow) -> bool:
    """Return whether two runs had the same bytes and environment, as far as both say."""
    return all(
        one.digests[name] == other.digests[name]
        for name in _SAME
        if name in one.digests and name in other.digests
    )


def _again(answers: Iterable[bool]) -> bool | None:
    """Return whether at least half of the reruns show it; None without a rerun."""
    known = list(answers)
    return sum(known) * 2 >= len(known) if known else None


def _elsewhere(
    host: str, hosts: str, *, is_same_seen: bool | None, is_other_seen: bool
) -> Confirmed:
    if is_other_seen:
        return Confirmed(AlarmCause.REAL, f"seen again on {hosts}", None)
    if is_same_seen:
        why = f"seen again on {host}, not on {hosts}"
        return Confirmed(AlarmCause.INFRASTRUCTURE, why, None)
    if is_same_seen is None:
        why = f"not seen on {hosts}; {host} was not asked again"
        return Confirmed(AlarmCause.INFRASTRUCTURE, why, Where.SAME_HOST)
    return Confirmed(AlarmCause.FLAKY, f"not seen again on {host} or {hosts}", None)


def _here(host: str, *, is_seen: bool, is_suspect: bool, has_failed: bool) -> Confirmed:
    if is_seen and is_suspect:
        why = f"seen again on {host} alone, where failures pile up"
        return Confirmed(AlarmCause.INFRASTRUCTURE, why, Where.OTHER_HOST)
    if is_seen:
        why = f"seen again on {host}; no other host was asked"
        return Confirmed(AlarmCause.REAL, why, Where.OTHER_HOST)
    if has_failed:
        why = f"not seen again, and a run failed on {host} in that night"
        return Confirmed(AlarmCause.INFRASTRUCTURE, why, None)
    return Confirmed(AlarmCause.FLAKY, f"not seen again on {host}", None)
