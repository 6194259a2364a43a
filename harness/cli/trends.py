"""`harness report LEDGER_DIR`: the trend page of a folder that nightlies were kept in."""

from pathlib import Path

from harness.cli.console import Result
from harness.nights import alarms, open_ledger, sick_hosts, unwatched
from harness.report import Notes, write_trend


def report(folder: Path) -> Result:
    """Write the trend page again."""
    file = write_page(folder)
    return Result(text=str(file), values={"files": [str(file)]})


def write_page(folder: Path) -> Path:
    """Write what a ledger's rows say over all nights, and return the page.

    Raises:
        RunDirectoryError: lines of the ledger were changed or are missing.
    """
    rows = open_ledger(folder).rows()
    hosts = tuple(one.message for one in sick_hosts(rows))
    return write_trend(rows, alarms(rows), folder, Notes(hosts=hosts, unwatched=unwatched(rows)))
