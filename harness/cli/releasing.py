"""`harness signoff` and `harness publish`."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from harness.artifacts import BundleCheck, Objection, SignOff, to_json
from harness.cli.console import Result
from harness.doors import check_folder
from harness.errors import ExitCode, ReasonCode, UsageError
from harness.nights import set_anchor
from harness.signoff import (
    Proof,
    Publication,
    Signer,
    check_bundle,
    exit_code_of,
    publish,
    sign_off,
)


class Anchoring(NamedTuple):
    """The cell of a nightly that is compared with the run from now on."""

    ledger: Path | None
    """Folder of the nightly."""
    cell: str | None

    def check(self) -> None:
        """Refuse one without the other, and a folder that cannot be written to.

        Raises:
            UsageError: with what is missing.
        """
        if (self.ledger is None) != (self.cell is None):
            message = "--ledger and --cell belong together: the nightly's folder and its cell."
            raise UsageError(message)
        if self.ledger is not None:
            check_folder(self.ledger)

    def anchor(self, run_dir: Path) -> Iterator[str]:
        """Make the run the anchor of the cell, and say so."""
        if self.ledger is not None and self.cell is not None:
            set_anchor(self.cell, run_dir, self.ledger)
            yield f"anchor: nights of '{self.cell}' in {self.ledger} are compared with it from now"


def signed_off(run_dir: Path, out: Path | None, signer: Signer, anchoring: Anchoring) -> Result:
    """Sign a run off, or say everything that stands against it."""
    if out is None:
        message = "a sign-off needs a place for its bundle. Type --out BUNDLE, a new folder."
        raise UsageError(message)
    anchoring.check()
    done = sign_off(run_dir, out, signer)
    if not isinstance(done, SignOff):
        return _refused(run_dir, done, "not signed off")
    lines = [
        _decided(done),
        (
            f"signed off: {out} ({len(done.files)} files, "
            f"{'signed' if signer.is_asked else 'unsigned'})"
        ),
        f"checkpoint: {done.checkpoint_digest} ({len(done.checkpoint)} files)",
    ]
    lines += anchoring.anchor(run_dir)
    key = " --public-key PEM" if signer.is_asked else ""
    lines.append(f"next: harness signoff --check {out} CHECKPOINT{key}")
    values = {"bundle": str(out), "is_signed": signer.is_asked, "signoff": to_json(done)}
    return Result(text="\n".join(lines), values=values)


def checked(bundle: Path, checkpoint: Path, proof: Proof) -> Result:
    """Hold a bundle against a checkpoint."""
    check = check_bundle(bundle, checkpoint, proof)
    code = ExitCode.NO_GO if check.faults else ExitCode.GO
    codes = [ReasonCode.NOT_SIGNED_OFF.value] if check.faults else []
    values = {
        "faults": list(check.faults),
        "signature": check.signature,
        "is_proven": check.is_proven,
        "signoff": to_json(check.signoff),
        "reason_codes": codes,
        "exit_code": int(code),
    }
    return Result(text="\n".join(_told(check, bundle, checkpoint)), values=values, exit_code=code)


def published(run_dir: Path, order: Publication) -> Result:
    """Publish the files of a run that were judged."""
    done = publish(run_dir, order)
    if isinstance(done, tuple):
        return _refused(run_dir, done, "not published")
    lines = [f"published: {done.repo}, {len(done.files)} files in one commit", done.commit]
    return Result(text="\n".join(lines), values=to_json(done))


def _told(check: BundleCheck, bundle: Path, checkpoint: Path) -> Sequence[str]:
    signoff = check.signoff
    said = f"the bundle is {check.signature}"
    if check.faults:
        return [f"'{checkpoint}' is not what '{bundle}' signs off:", *check.faults, said]
    return [
        _decided(signoff),
        (
            f"signed off {signoff.signed_off}; all {len(signoff.checkpoint)} files of "
            f"'{checkpoint}' and all {len(signoff.files) + 1} of '{bundle}' are as they were then"
        ),
        said,
    ]


def _decided(signoff: SignOff) -> str:
    """Return the verdict in one line, which its summary may begin with."""
    is_said = signoff.summary.startswith(signoff.title)
    return signoff.summary if is_said else f"{signoff.title}: {signoff.summary}"


def _refused(run_dir: Path, objections: Sequence[Objection], what: str) -> Result:
    code = exit_code_of(objections)
    values = {
        "objections": [to_json(objection) for objection in objections],
        "reason_codes": [ReasonCode.NOT_SIGNED_OFF.value],
        "exit_code": code,
    }
    lines = [f"{what}: {run_dir}", *(f"- {objection.message}" for objection in objections)]
    return Result(text="\n".join(lines), values=values, exit_code=code)
