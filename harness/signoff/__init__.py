"""Sign a release off: a bundle that others can check, and the upload of what was judged."""

from pathlib import Path

from harness.artifacts import Objection, SignOff
from harness.signoff.bundle import write_bundle
from harness.signoff.check import check_bundle
from harness.signoff.demands import exit_code_of, look_at
from harness.signoff.publishing import Publication, Published, publish
from harness.signoff.signing import Proof, Signer

__all__ = [
    "Proof",
    "Publication",
    "Published",
    "Signer",
    "check_bundle",
    "exit_code_of",
    "publish",
    "sign_off",
]


def sign_off(run_dir: Path, out: Path, signer: Signer) -> SignOff | tuple[Objection, ...]:
    """Write the bundle of a run, or return everything that stands against its release.

    Raises:
        UsageError: the run or the place of the bundle cannot be used, or the key cannot.
        EvidenceError: the checkpoint was changed meanwhile.
    """
    signer.check()
    looked = look_at(run_dir)
    if looked.objections:
        return looked.objections
    return write_bundle(run_dir, looked, out, signer)
