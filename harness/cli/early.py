"""What a command begins before anything heavy is imported."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.doors import expanded
from harness.request import Request
from harness.verify import ReadingAhead, reading_checkpoint


@contextmanager
def candidate_read(request: Request, candidate: Path | None) -> Iterator[ReadingAhead]:
    """Read a gate's candidate while all else is prepared, beside its baseline if that is a folder.

    Raises:
        UsageError: the name of a folder begins with a user who has no home.
    """
    if candidate is None or request.skip_verify:
        with ReadingAhead(None) as nothing:
            yield nothing
        return
    baseline = expanded(request.model) if request.model else None
    is_model = baseline is not None and (baseline / "config.json").is_file()
    with reading_checkpoint(candidate, baseline if is_model else None) as ahead:
        yield ahead
