"""Hold a bundle against a checkpoint, with nothing but the two: no run directory, no network.

The bundle may come from anybody. Only what lies in its folder is opened, every file is hashed
before it is read, and whatever is wrong is told with the file's name. What it says is as sure as
the signature; without one, as where it came from.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

from harness.artifacts import (
    BundleCheck,
    Decision,
    SignOff,
    Verdict,
    digest_of,
    load,
    made_from,
    record_digest,
)
from harness.artifacts.store import text_of_record
from harness.errors import HarnessError, UnreadableError
from harness.models import MANIFEST_FILE, sha256_of
from harness.reading import bounds, read_bytes, read_json_object
from harness.refusals import visible
from harness.signoff.bundle import (
    BUNDLE_FILE,
    EVIDENCE,
    SIGNATURE_FILE,
    STATEMENT_FILE,
    VERDICT_FILE,
)
from harness.signoff.card import CARD_FILE
from harness.signoff.folders import OF_GIT, all_files
from harness.signoff.results import RESULTS_FOLDER
from harness.signoff.signing import Proof
from harness.signoff.statement import statement_of
from harness.stages import JUDGE, STAGES

_ADVICE = "Take the bundle again from whoever signed it off."


def check_bundle(bundle: Path, checkpoint: Path, proof: Proof) -> BundleCheck:
    """Say in what a bundle and a checkpoint differ from what was signed off.

    Args:
        bundle: folder that `sign_off` wrote, or says so.
        checkpoint: folder of the model's files.
        proof: with what its signature is checked.

    Raises:
        UsageError: one is no folder, the bundle has no bundle.json that can be read, or the key
            cannot be used.
    """
    proof.check()
    signoff = read_signoff(bundle)
    for folder, what in ((bundle, "bundle"), (checkpoint, "checkpoint")):
        if not folder.is_dir():
            raise UnreadableError(folder, f"is no folder of a {what}. Name another")
    faults = [*_bundle_faults(bundle, signoff), *checkpoint_faults(checkpoint, signoff)]
    is_signed = (bundle / SIGNATURE_FILE).is_file()
    if not proof.is_asked:
        signature = "signed, which was not checked: name the key" if is_signed else "unsigned"
        return _checked(signoff, faults, signature, is_proven=False)
    if not is_signed:
        faults.append(f"the bundle is unsigned: '{bundle / SIGNATURE_FILE}' is not there")
        return _checked(signoff, faults, "unsigned", is_proven=False)
    fault = proof.fault(bundle, bundle / SIGNATURE_FILE)
    if fault is not None:
        faults.append(f"the signature '{bundle / SIGNATURE_FILE}' does not hold: {fault}")
        return _checked(signoff, faults, "signed by somebody else or changed", is_proven=False)
    return _checked(signoff, faults, "signed, and the signature holds", is_proven=True)


def read_signoff(bundle: Path) -> SignOff:
    """Read bundle.json.

    Raises:
        RunDirectoryError: it is none, or says something else than was written.
    """
    return load(SignOff, bundle / BUNDLE_FILE, advice=_ADVICE)


def checkpoint_faults(checkpoint: Path, signoff: SignOff) -> Iterator[str]:
    """Yield what is not as it was signed off in a checkpoint, or as it was published."""
    there = set(all_files(checkpoint, but=OF_GIT))
    for name, sha256 in sorted(signoff.checkpoint.items()):
        if name not in there:
            yield f"'{checkpoint / name}' is missing"
        elif name != CARD_FILE or not _is(checkpoint / name, signoff.files.get(CARD_FILE)):
            yield from _differs(checkpoint / name, sha256)
    for name in sorted(there - signoff.checkpoint.keys()):
        known = signoff.beside.get(name) if name == MANIFEST_FILE else _published(name, signoff)
        if known is None:
            yield f"'{checkpoint / name}' was not signed off"
        else:
            yield from _differs(checkpoint / name, known)


def _published(name: str, signoff: SignOff) -> str | None:
    """Return the sha256 of a file that `harness publish` puts beside a checkpoint."""
    is_ours = name == CARD_FILE or name.startswith(f"{RESULTS_FOLDER}/")
    return signoff.files.get(name) if is_ours else None


def _bundle_faults(bundle: Path, signoff: SignOff) -> Iterator[str]:
    known = {**signoff.files}
    there = set(all_files(bundle)) - {BUNDLE_FILE, SIGNATURE_FILE}
    if not _is_canonical(bundle / BUNDLE_FILE):
        yield f"'{bundle / BUNDLE_FILE}' is not spelled as it was written"
    for name in sorted(known.keys() - there):
        yield f"'{bundle / name}' is missing"
    for name in sorted(there - known.keys()):
        yield f"'{bundle / name}' was not signed off"
    changed: list[str] = []
    for name in sorted(known.keys() & there):
        path = bundle / name
        changed += [f"'{path}' is a link"] if path.is_symlink() else _differs(path, known[name])
    yield from changed
    if not changed and VERDICT_FILE in there & known.keys():
        yield from _contradictions(bundle, signoff)


def _differs(path: Path, sha256: str) -> Iterator[str]:
    if not path.is_file():
        yield f"'{path}' is no file"
    elif not _is(path, sha256):
        yield f"'{path}' is not the file that was signed off"


def _is(path: Path, sha256: str | None) -> bool:
    return sha256_of(path) == sha256


def _is_canonical(path: Path) -> bool:
    """Return whether bundle.json is spelled as harness writes it: nothing else hashes its bytes."""
    if path.is_symlink():
        return False
    most = bounds.INDEX_BYTES
    written = text_of_record(read_json_object(path, most=most))
    return read_bytes(path, most=most) == written.encode()


def _contradictions(bundle: Path, signoff: SignOff) -> Iterator[str]:
    """Yield in what the bundle's own parts contradict each other; each is read as a stranger's."""
    try:
        verdict = load(Verdict, bundle / VERDICT_FILE, advice=_ADVICE)
        statement = read_json_object(bundle / STATEMENT_FILE)
        judged = made_from(bundle / VERDICT_FILE) or {}
    except HarnessError as error:
        yield str(error)
        return
    said = (signoff.title, signoff.summary, signoff.scope, signoff.checkpoint_digest)
    found = (verdict.title, verdict.summary, verdict.scope, verdict.checkpoint_digest)
    if verdict.decision is not Decision.GO:
        yield f"'{bundle / VERDICT_FILE}' is {verdict.decision.value}"
    if said != found or str(verdict.baseline_digest) != signoff.baseline_digest:
        yield f"'{bundle / BUNDLE_FILE}' says something else than '{bundle / VERDICT_FILE}'"
    if digest_of(signoff.checkpoint) != signoff.checkpoint_digest:
        yield f"'{bundle / BUNDLE_FILE}' names other files than the checkpoint that was judged"
    if statement != statement_of(verdict, signoff, signoff.files[VERDICT_FILE]):
        yield f"'{bundle / STATEMENT_FILE}' says something else than the verdict"
    yield from _unjudged(bundle / EVIDENCE, judged)


def _unjudged(evidence: Path, judged: Mapping[str, str]) -> Iterator[str]:
    """Yield records that are not those that the verdict was made from."""
    for stage in STAGES:
        if stage is JUDGE or stage.name not in judged:
            continue
        try:
            found = record_digest(evidence / stage.file)
        except HarnessError as error:
            yield str(error)
            continue
        if found != judged[stage.name]:
            yield f"'{evidence / stage.file}' is not what the verdict was made from"


def _checked(
    signoff: SignOff, faults: list[str], signature: str, *, is_proven: bool
) -> BundleCheck:
    return BundleCheck(
        signoff=signoff,
        faults=tuple(map(visible, faults)),
        signature=signature,
        is_proven=is_proven,
    )
