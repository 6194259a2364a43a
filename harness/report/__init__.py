"""Tell people and machines how a run ended."""

from harness.report.junit import Case, Problem, junit_document, write_junit, write_no_findings
from harness.report.smoke import terminal_smoke
from harness.report.terminal import terminal_table
from harness.report.trend import TREND_FILE, Notes, write_trend
from harness.report.write import REPORT_FILES, ReportFiles, write_pending, write_report

__all__ = [
    "REPORT_FILES",
    "TREND_FILE",
    "Case",
    "Notes",
    "Problem",
    "ReportFiles",
    "junit_document",
    "terminal_smoke",
    "terminal_table",
    "write_junit",
    "write_no_findings",
    "write_pending",
    "write_report",
    "write_trend",
]
