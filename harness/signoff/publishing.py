"""Publish a release: the files that were judged, their card and their results, and nothing else."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from harness.artifacts import Objection, RunRecord, SignOff
from harness.errors import EvidenceError, ExitCode, ReasonCode
from harness.evidence import folder_of
from harness.models import unchanged
from harness.reading import read_bytes
from harness.runs import read_run
from harness.signoff.bundle import outlined, texts_of, verdict_of
from harness.signoff.card import CARD_FILE
from harness.signoff.check import check_bundle
from harness.signoff.demands import against_run
from harness.signoff.results import RESULTS_FOLDER
from harness.signoff.signing import Proof
from harness.signoff.upload import Hub, Upload

_IN_MEMORY_BYTES = 16 << 20
"""A file of at most this size is held from its hash to the commit. The Hub takes larger ones by
their sha256 only."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Publication:
    """What is to be published, and where."""

    repo: str
    """Such as `org/model`."""
    bundle: Path | None = None
    """Of its sign-off."""
    proof: Proof = field(default_factory=Proof)
    """With what the bundle's signature is checked."""
    private: bool = False
    """Where the repository is new."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Published:
    """What came of it."""

    repo: str
    commit: str
    """URL of the commit."""
    files: tuple[str, ...]


def publish(run_dir: Path, order: Publication) -> Published | tuple[Objection, ...]:
    """Upload the checkpoint of a run in one commit, or return what stands against it.

    Raises:
        EvidenceError: a file is not the one that was judged; nothing was committed.
        UploadError: the Hub refused, or cannot be reached.
        UsageError: the run, the bundle or the repository's name cannot be used.
    """
    record = read_run(run_dir)
    folder = folder_of(run_dir, record.recipe)
    objections = tuple(_objections(record, run_dir, order))
    if objections:
        return objections
    verdict = verdict_of(record)
    with unchanged(folder, str(verdict.checkpoint_digest), meanwhile="read"):
        signoff = outlined(record, verdict, folder)
    judged = [_upload(folder, name, signoff.checkpoint) for name in sorted(signoff.checkpoint)]
    texts = _texts(record, signoff, order.bundle)
    # The card takes the place of one that the checkpoint was made with.
    uploads = [upload for upload in judged if upload.name not in texts]
    uploads += [Upload.of_bytes(name, content) for name, content in sorted(texts.items())]
    hub = Hub(order.repo)
    hub.open(private=order.private, names={upload.name for upload in uploads})
    with unchanged(folder, str(verdict.checkpoint_digest), meanwhile="uploaded"):
        additions = hub.send(uploads)
    message = f"{verdict.title}: {verdict.model} as {verdict.scheme}"
    return Published(
        repo=order.repo,
        commit=hub.commit(additions, message),
        files=tuple(upload.name for upload in uploads),
    )


def _objections(record: RunRecord, run_dir: Path, order: Publication) -> list[Objection]:
    found = against_run(record, run_dir)
    if found or record.verdict is None:
        return found
    if order.bundle is None:
        if record.verdict.waived:
            message = (
                f"the verdict is {record.verdict.title}. Sign it off, which says so, and name the "
                "bundle: --bundle B."
            )
            found.append(Objection(exit_code=int(ExitCode.USAGE), message=message))
        return found
    folder = folder_of(run_dir, record.recipe)
    check = check_bundle(order.bundle, folder, order.proof)
    faults = [*check.faults]
    if not faults and check.signoff.checkpoint_digest != record.verdict.checkpoint_digest:
        faults.append(f"'{order.bundle}' is of another checkpoint than the run's")
    return [Objection(exit_code=int(ExitCode.NO_GO), message=fault) for fault in faults]


def _upload(folder: Path, name: str, judged: Mapping[str, str]) -> Upload:
    """Return a file of the checkpoint, with its content where it is small.

    Raises:
        EvidenceError: what was read is not what was judged.
    """
    path = folder / name
    if path.stat().st_size > _IN_MEMORY_BYTES:
        return Upload(name=name, sha256=judged[name], content=path)
    upload = Upload.of_bytes(name, read_bytes(path, most=_IN_MEMORY_BYTES))
    if upload.sha256 != judged[name]:
        message = f"'{path}' is not the file that was judged. Nothing was published."
        raise EvidenceError(message, reason=ReasonCode.EVIDENCE_CHANGED)
    return upload


def _texts(record: RunRecord, signoff: SignOff, bundle: Path | None) -> dict[str, bytes]:
    """Return the card and the results: as they were signed off, or made now."""
    if bundle is None:
        texts = texts_of(record, verdict_of(record), signoff, is_signed_off=False)
        return {name: text.encode() for name, text in texts.items()}
    found = [bundle / CARD_FILE, *sorted((bundle / RESULTS_FOLDER).iterdir())]
    return {path.relative_to(bundle).as_posix(): read_bytes(path) for path in found}
