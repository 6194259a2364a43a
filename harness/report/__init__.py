"""Tell people and machines how a run ended."""

from harness.report.junit import write_junit
from harness.report.smoke import terminal_smoke
from harness.report.terminal import terminal_table
from harness.report.write import ReportFiles, write_report

__all__ = ["ReportFiles", "terminal_smoke", "terminal_table", "write_junit", "write_report"]
