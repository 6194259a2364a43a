"""The `verify` command: a checkpoint's files, and what they are checked against."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.artifacts import to_json
from harness.cli import text
from harness.cli.console import Result
from harness.doors import check_file
from harness.engines import find_engine
from harness.errors import ExitCode, HarnessError
from harness.models import locate_model
from harness.report import write_junit, write_no_findings
from harness.verify import verify as verify_files

_LEFT_OUT = {
    "source": "--source MODEL compares weights, names and files beside them with the source",
    "engine": "--engine vllm==VERSION asks what that version asks, under its own names",
}


def verify(checkpoint: Path, source: str | None, engine: str | None, junit: Path | None) -> Result:
    """Check a checkpoint's files, and write the findings as JUnit if a file is named.

    Raises:
        UsageError: the engine version, the source or the checkpoint is none that can be read.
    """
    with _reported(junit):
        if engine:
            find_engine(engine)  # before anything is read or downloaded
        folder = locate_model(source) if source else None
        report = verify_files(checkpoint, source=folder, engine=engine)
    if junit:
        write_junit(report, junit)
    lines = (text.digest_line(report.checkpoint_digest),) if report.errors else ()
    named = {"source": source, "engine": engine}
    left_out = tuple(_LEFT_OUT[option] for option, value in named.items() if not value)
    return Result(
        text="\n".join([text.of_integrity(report, left_out=left_out), *lines]),
        values=to_json(report),
        exit_code=ExitCode.NO_GO if report.errors else ExitCode.GO,
    )


@contextmanager
def _reported(junit: Path | None) -> Iterator[None]:
    """Let the JUnit file show an error until there are findings: an older one may lie there.

    Raises:
        UsageError: no file can be written there.
    """
    if junit is None:
        yield
        return
    check_file(junit)
    write_no_findings(junit, "verification has not come to its end")
    try:
        yield
    except HarnessError as error:
        write_no_findings(junit, str(error))
        raise
