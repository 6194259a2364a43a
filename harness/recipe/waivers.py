"""Read the one file in which a failed check may be waived; it is only ever named by hand.

A waiver says which check failed, for which checkpoint, why that is accepted, by whom and until
when. The file lies beside other reviewed code, so its history says who agreed. It is refused as a
whole if anything in it could be read as more than it says: unknown keys, an empty reason, a digest
that is none, a day that has passed.
"""

import re
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

from harness.artifacts import Waiver
from harness.errors import WaiverError
from harness.recipe.names import first_double
from harness.recipe.schema import read_yaml

_DIGEST = re.compile(r"[0-9a-f]{64}")


def _day(value: object) -> object:
    """Refuse what pydantic would take for a day too, such as a number of seconds."""
    if isinstance(value, str) or (isinstance(value, date) and not isinstance(value, datetime)):
        return value
    message = "a day is written as 2031-12-31"
    raise ValueError(message)


_Day = Annotated[date, BeforeValidator(_day)]
_Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class WaiverFile(_Strict):
    """One waiver."""

    check: _Text
    checkpoint: str
    reason: _Text
    approver: _Text
    expires: _Day


class WaiversFile(_Strict):
    """The whole file."""

    version: Literal[1]
    waivers: Annotated[tuple[WaiverFile, ...], Field(min_length=1)]


def load_waivers(path: Path | None) -> tuple[Waiver, ...]:
    """Return the waivers in `path`; none where no file was named.

    Raises:
        WaiverError: the file is malformed, or a waiver in it can never apply.
    """
    if path is None:
        return ()
    file = read_yaml(path, WaiversFile, WaiverError)
    waivers = tuple(Waiver(**one.model_dump()) for one in file.waivers)
    today = datetime.now(UTC).date()
    for waiver in waivers:
        _refuse_useless(waiver, path, today)
    named = [(waiver.check, waiver.checkpoint) for waiver in waivers]
    twice = first_double(named)
    if twice is not None:
        message = f"'{path}' waives '{twice[0]}' of checkpoint {twice[1][:12]} twice. Remove one."
        raise WaiverError(message)
    return waivers


def _refuse_useless(waiver: Waiver, path: Path, today: date) -> None:
    if not _DIGEST.fullmatch(waiver.checkpoint):
        message = (
            f"'{path}', waiver of '{waiver.check}': '{waiver.checkpoint}' is no digest of a "
            "checkpoint. Give the 64 hexadecimal digits that the failed run printed."
        )
        raise WaiverError(message)
    if waiver.expires < today:
        message = (
            f"'{path}': the waiver of '{waiver.check}' expired on {waiver.expires}. "
            "Mend the checkpoint, or have the waiver reviewed again."
        )
        raise WaiverError(message)
