"""Waivers: failed checks that a named person accepts until a date."""

from dataclasses import dataclass
from datetime import date, datetime
from typing import Annotated

from pydantic import BeforeValidator

from harness.artifacts.limits import STRICT, Stripped


def _day(value: object) -> object:
    """Refuse what pydantic would take for a day too, such as a number of seconds."""
    if isinstance(value, str) or (isinstance(value, date) and not isinstance(value, datetime)):
        return value
    message = "a day is written as 2031-12-31"
    raise ValueError(message)


Day = Annotated[date, BeforeValidator(_day)]
"""A day that somebody wrote down."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Waiver:
    """One entry of a reviewed waivers.yaml."""

    __pydantic_config__ = STRICT
    check: Stripped
    """Id of a check of files, of a deployment's finding or of the smoke run."""
    checkpoint: str
    """Digest of the one checkpoint for which it holds, 64 hexadecimal digits."""
    reason: Stripped
    approver: Stripped
    expires: Day
    """The last day on which it holds, UTC."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WaivedCheck:
    """A check that failed and was waived."""

    check: str
    reason: str
    approver: str
    expires: date
