"""The reports of a run: report.html for people, report.md for pull requests, junit.xml for CI.

All three are written whatever happened: a run without a verdict is reported as one, with how far
it got. The page needs no network and nothing beside it.
"""

from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from harness.artifacts import RunRecord, write_atomically
from harness.report import costs, page, words
from harness.report.junit import junit_xml
from harness.report.smoke import smoke_sections, was_not_run


class ReportFiles(NamedTuple):
    """Where the reports are."""

    html: Path
    markdown: Path
    junit: Path


REPORT_FILES = ("report.html", "report.md", "junit.xml")


def write_pending(record: RunRecord, *, into: Path) -> None:
    """Write what CI is to show of a run that never comes to its end."""
    write_atomically(into / "junit.xml", junit_xml(record))


def write_report(record: RunRecord, *, into: Path) -> ReportFiles:
    """Write the three reports of `record` to the folder `into`, replacing older ones."""
    files = ReportFiles(*(into / name for name in REPORT_FILES))
    environment = _environment()
    contents = _contents(record)
    for template, file in (("report.html.j2", files.html), ("report.md.j2", files.markdown)):
        write_atomically(file, environment.get_template(template).render(contents))
    write_atomically(files.junit, junit_xml(record))
    return files


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("harness.report"),
        autoescape=select_autoescape(enabled_extensions=("html.j2",), default=False),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters = (
        *(words.beginning, words.cell, words.decision_class, words.decision_word, words.ending),
        *(words.explanation, words.flips, words.interval, words.percent, words.points),
        *(words.baseline, words.candidate, words.difference, words.margin, words.visible),
    )
    environment.filters.update({function.__name__: function for function in filters})
    environment.tests["not_run"] = was_not_run
    return environment


def _contents(record: RunRecord) -> dict[str, object]:
    """Return everything that the templates name."""
    plan, verdict = record.plan, record.verdict
    tasks = page.critical_first(verdict.tasks if verdict else ())
    return {
        "banner": page.banner_of(record),
        "checks": page.sorted_checks(record),
        "confidence": f"{record.recipe.suite.confidence:.0%}",
        "coverage_note": page.coverage_note(record.recipe, record.stats),
        "deployment": page.deployment_facts(record.deployment),
        "facts": page.facts_of(record),
        "groups": (*plan.quantized_groups(), *plan.excluded_groups()) if plan else (),
        "methods": page.methods_of(record.verdict),
        "plots": _plots(record),
        "pooled": words.pooled_note(record.verdict),
        "record": record,
        "tasks": tasks,
        "measures": costs.measures_of(verdict),
        "speed_note": costs.speed_note(verdict),
        "lengths": costs.length_rows(tasks),
        "sampled": costs.sampled_rows(tasks),
        "endings": costs.ending_rows(record),
        "smoke": smoke_sections(record),
        "stages": page.stages_of(record),
        "tiles": page.tiles_of(record),
        "verdict": record.verdict,
        "waived": {w.check for w in record.verdict.waived} if record.verdict else set(),
    }


def _plots(record: RunRecord) -> dict[str, Markup | None]:
    from harness.report import plots  # noqa: PLC0415 -- imports matplotlib

    scales, label = (record.integrity.input_scales if record.integrity else {}), "input scale"
    if not scales and record.stats:
        scales, label = plots.input_amax_ranges(record.stats), "largest absolute input"
    tasks = page.critical_first(record.verdict.tasks if record.verdict else ())
    return {
        "differences": plots.plot_differences(tasks),
        "lengths": plots.plot_lengths(tasks),
        "coverage": plots.plot_coverage(record.stats.coverage if record.stats else ()),
        "scales": plots.plot_scales(scales, label=label),
    }
