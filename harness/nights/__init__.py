"""The ledger of nightlies, and what drifts from one night to the next."""

from harness.nights.alarms import Raised, alarms, raised, raised_by, unwatched
from harness.nights.anchors import Anchor, anchor_of, set_anchor
from harness.nights.confirming import Where
from harness.nights.hosts import HostFailures, sick_hosts
from harness.nights.ledger import Ledger, open_ledger
from harness.nights.row import CellRun, row_of_run
from harness.nights.standing import (
    day_of,
    exit_code_of_night,
    is_excused,
    not_recorded,
    standing,
    worst_of,
)

__all__ = [
    "Anchor",
    "CellRun",
    "HostFailures",
    "Ledger",
    "Raised",
    "Where",
    "alarms",
    "anchor_of",
    "day_of",
    "exit_code_of_night",
    "is_excused",
    "not_recorded",
    "open_ledger",
    "raised",
    "raised_by",
    "row_of_run",
    "set_anchor",
    "sick_hosts",
    "standing",
    "unwatched",
    "worst_of",
]
