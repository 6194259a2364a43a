"""Failed checks that somebody answers for, by name and until a day."""

from dataclasses import dataclass
from datetime import date


@dataclass(frozen=True, kw_only=True, slots=True)
class Waiver:
    """One entry of a reviewed waivers.yaml."""

    check: str
    """Id of a check of files, of a deployment's finding or of the smoke run."""
    checkpoint: str
    """Digest of the one checkpoint for which it holds, 64 hexadecimal digits."""
    reason: str
    approver: str
    expires: date
    """The last day on which it holds, UTC."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WaivedCheck:
    """A check that failed and was waived."""

    check: str
    reason: str
    approver: str
    expires: date
