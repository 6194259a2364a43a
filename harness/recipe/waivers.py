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

from pydantic import Field

from harness.artifacts import Waiver
from harness.errors import WaiverError
from harness.recipe.names import first_double
from harness.recipe.schema import Strict, read_yaml

_DIGEST = re.compile(r"[0-9a-f]{64}")


class WaiversFile(Strict):
    """The whole file."""

    version: Literal[1]
    waivers: Annotated[tuple[Waiver, ...], Field(min_length=1)]


def load_waivers(path: Path | None) -> tuple[Waiver, ...]:
    """Return the waivers in `path`; none where no file was named.

    Raises:
        WaiverError: the file is malformed, or a waiver in it can never apply.
    """
    if path is None:
        return ()
    file = read_yaml(path, WaiversFile, WaiverError)
    waivers, today = file.waivers, datetime.now(UTC).date()
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
