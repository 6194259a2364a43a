"""What a command begins before anything heavy is imported."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.errors import HarnessError
from harness.models import locate_model
from harness.request import Request
from harness.verify import ReadingAhead, reading_checkpoint


@contextmanager
def candidate_read(request: Request, candidate: Path | None) -> Iterator[ReadingAhead]:
    """Read a gate's candidate while all else is prepared, beside its baseline if that lies here."""
    if candidate is None or request.skip_verify:
        with ReadingAhead(None) as nothing:
            yield nothing
        return
    with reading_checkpoint(candidate, _baseline(request)) as ahead:
        yield ahead


def _baseline(request: Request) -> Path | None:
    """Return the folder of the model that is compared with; None of scores, and of none here."""
    if not request.model:
        return None
    try:
        folder = locate_model(request.model, revision=request.revision, download=False)
    except HarnessError:  # what has to be said of it is said when it is opened
        return None
    return folder if (folder / "config.json").is_file() else None
