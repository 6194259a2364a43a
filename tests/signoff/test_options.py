"""Options of signatures that do not belong together are refused, whatever is installed."""

from pathlib import Path

import pytest

from harness.errors import UsageError
from harness.signoff import Proof, Signer

PEM = Path("release.pem")


@pytest.mark.parametrize(
    ("signer", "named"),
    [
        (Signer(certificate=PEM), "--sign-key KEY"),
        (Signer(key=PEM, chain=(PEM,)), "--sign-certificate"),
        (Signer(key=PEM, keyless=True), "--sign-keyless"),
    ],
)
def test_half_a_signer_is_refused(signer: Signer, named: str) -> None:
    with pytest.raises(UsageError, match=named):
        signer.check()


@pytest.mark.parametrize(
    ("proof", "named"),
    [
        (Proof(public_key=PEM, chain=(PEM,)), "has one signature"),
        (Proof(identity="a@b"), "belong together"),
        (Proof(provider="https://accounts.example"), "belong together"),
    ],
)
def test_half_a_proof_is_refused(proof: Proof, named: str) -> None:
    with pytest.raises(UsageError, match=named):
        proof.check()


def test_nothing_is_asked_of_the_library_without_a_key() -> None:
    Signer().check()
    Proof().check()
