"""Refuse waivers of what is no check: they would look like an approval and mean nothing."""

from harness.artifacts import Waiver
from harness.errors import WaiverError
from harness.gate import SIZE_CHECK
from harness.recipe import nearest
from harness.serve import FINDING_IDS
from harness.smoke import CHECK_IDS as SMOKE_IDS
from harness.verify import CHECK_IDS as FILE_IDS

WAIVABLE = FILE_IDS | FINDING_IDS | SMOKE_IDS | {SIZE_CHECK}


def check_waivers(waivers: tuple[Waiver, ...]) -> None:
    """Refuse a waiver whose check does not exist, or reports what is missing or failed.

    Raises:
        WaiverError: with the nearest names.
    """
    for waiver in waivers:
        if waiver.check not in WAIVABLE:
            close = ", ".join(nearest(waiver.check, WAIVABLE)) or "none"
            message = (
                f"the waiver of '{waiver.check}' names no check that can be waived. Nearest: "
                f"{close}. Scores, and missing or failed results, have no waivers."
            )
            raise WaiverError(message)
