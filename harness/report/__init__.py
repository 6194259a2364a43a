"""Tell people and machines how a run ended."""

from harness.report.terminal import terminal_table
from harness.report.write import ReportFiles, write_report

__all__ = ["ReportFiles", "terminal_table", "write_report"]
