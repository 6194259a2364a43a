"""The ledger of nightlies, and what drifts from one night to the next."""

from harness.nights.ledger import Ledger, open_ledger
from harness.nights.row import CellRun, row_of_run

__all__ = ["CellRun", "Ledger", "open_ledger", "row_of_run"]
