"""Signatures of OpenSSF model-signing, offline: with a key, or a certificate and its root."""

import json
import random
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from harness.artifacts import SignOff
from harness.errors import UsageError
from harness.models import sha256_of
from harness.signoff import Proof, Signer, check_bundle, sign_off, signing
from tests.signoff.conftest import Run
from tests.tiers import slow
from tests.typed import typed

if TYPE_CHECKING:
    from tests.signoff.keys import Certificates, Keys


@pytest.fixture(scope="module")
@slow("needs the extra 'sign', which is not in the environment of the quick tests")
def keys(tmp_path_factory: pytest.TempPathFactory) -> "Keys":
    pytest.importorskip("model_signing", reason="needs the extra 'sign'")
    from tests.signoff.keys import make_key  # noqa: PLC0415 - needs cryptography

    return make_key(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="module")
def certificates(keys: "Keys") -> "Certificates":
    from tests.signoff.keys import make_certificates  # noqa: PLC0415 - needs cryptography

    return make_certificates(keys.private.parent)


@pytest.fixture
def folder(made: Run, keys: "Keys", tmp_path: Path) -> Path:
    """A signed bundle, and the checkpoint."""
    assert isinstance(sign_off(made.path, tmp_path / "bundle", Signer(key=keys.private)), SignOff)
    shutil.copytree(made.checkpoint, tmp_path / "model")
    return tmp_path


def faults(folder: Path, proof: Proof) -> tuple[str, ...]:
    return check_bundle(folder / "bundle", folder / "model", proof).faults


def test_the_right_key_proves_a_bundle(folder: Path, keys: "Keys") -> None:
    found = check_bundle(folder / "bundle", folder / "model", Proof(public_key=keys.public))
    assert (found.faults, found.is_proven) == ((), True)


def test_without_a_key_a_signature_is_said_not_to_be_checked(folder: Path) -> None:
    found = check_bundle(folder / "bundle", folder / "model", Proof())
    assert (found.faults, found.is_proven) == ((), False)
    assert "not checked" in found.signature


def test_another_key_proves_nothing(folder: Path, keys: "Keys") -> None:
    from tests.signoff.keys import make_key  # noqa: PLC0415 - needs cryptography

    other = make_key(keys.private.parent, "other")
    (fault,) = faults(folder, Proof(public_key=other.public))
    assert "bundle.sig' does not hold" in fault


def test_a_bundle_that_was_rewritten_consistently_fails_by_its_signature(
    folder: Path, keys: "Keys"
) -> None:
    card, root = folder / "bundle" / "README.md", folder / "bundle" / "bundle.json"
    card.write_text("# the best model")
    from harness.artifacts import save  # noqa: PLC0415 - as one who forges would

    values = json.loads(root.read_text())
    said = {k: v for k, v in values.items() if k not in {"made_from", "record_sha256"}}
    said["files"]["README.md"] = sha256_of(card)
    save(SignOff(**said), root)
    assert faults(folder, Proof()) == ()
    (fault,) = faults(folder, Proof(public_key=keys.public))
    assert "README.md" in fault
    assert "bundle.json" in fault


class _Digest(NamedTuple):
    """As model-signing prints one."""

    digest_value: bytes


def test_changed_files_are_named_whatever_bytes_their_digests_hold() -> None:
    drawn = random.Random(0)  # noqa: S311 - no secret
    for _ in range(500):
        digests = [_Digest(drawn.randbytes(32)) for _ in range(4)]
        shown = [str(one).removeprefix("_") for one in digests]
        differences = [
            f"Hash mismatch for 'README.md': Expected '{shown[0]}', Actual '{shown[1]}'",
            f"Hash mismatch for 'bundle.json': Expected '{shown[2]}', Actual '{shown[3]}'",
        ]
        line = signing._line(ValueError(f"Signature mismatch: {differences}"))  # noqa: SLF001
        for quote in ("'", "\\'"):
            line = line.replace(f"{quote}README.md{quote}", "README").replace(
                f"{quote}bundle.json{quote}", "bundle"
            )
        assert re.sub(r"[\[\"']", "", line) == (
            "Signature mismatch: Hash mismatch for README, Hash mismatch for bundle"
        )


@pytest.mark.parametrize("content", ["", "{}", '{"a": 1}', "\0"])
def test_a_damaged_signature_fails(folder: Path, keys: "Keys", content: str) -> None:
    (folder / "bundle" / "bundle.sig").write_text(content)
    (fault,) = faults(folder, Proof(public_key=keys.public))
    assert "bundle.sig' does not hold" in fault


def test_a_changed_byte_of_the_signature_fails(folder: Path, keys: "Keys") -> None:
    path = folder / "bundle" / "bundle.sig"
    values = json.loads(path.read_text())
    signature = values["dsseEnvelope"]["signatures"][0]
    signature["sig"] = ("A" if signature["sig"][8] != "A" else "B").join(
        (signature["sig"][:8], signature["sig"][9:])
    )
    path.write_text(json.dumps(values))
    assert len(faults(folder, Proof(public_key=keys.public))) == 1


def test_the_checkpoint_has_a_signature_of_its_own(folder: Path, keys: "Keys") -> None:
    import model_signing  # noqa: PLC0415 - an extra

    verifier = model_signing.verifying.Config().use_elliptic_key_verifier(public_key=keys.public)
    verifier.verify(folder / "model", folder / "bundle" / "checkpoint.sig")
    (folder / "model" / "config.json").write_text("{}")
    with pytest.raises(ValueError, match=r"config\.json"):
        verifier.verify(folder / "model", folder / "bundle" / "checkpoint.sig")


def test_a_certificate_is_proven_by_its_root(
    made: Run, certificates: "Certificates", tmp_path: Path
) -> None:
    signer = Signer(
        key=certificates.private, certificate=certificates.leaf, chain=(certificates.root,)
    )
    assert isinstance(sign_off(made.path, tmp_path / "bundle", signer), SignOff)
    shutil.copytree(made.checkpoint, tmp_path / "model")
    assert faults(tmp_path, Proof(chain=(certificates.root,))) == ()


def test_a_certificate_of_another_root_proves_nothing(
    made: Run, certificates: "Certificates", tmp_path: Path
) -> None:
    from tests.signoff.keys import make_certificates  # noqa: PLC0415 - needs cryptography

    signer = Signer(
        key=certificates.private, certificate=certificates.leaf, chain=(certificates.root,)
    )
    assert isinstance(sign_off(made.path, tmp_path / "bundle", signer), SignOff)
    shutil.copytree(made.checkpoint, tmp_path / "model")
    other = make_certificates(tmp_path, "other")
    (fault,) = faults(tmp_path, Proof(chain=(other.root,)))
    assert "bundle.sig' does not hold" in fault


def test_an_unsigned_bundle_fails_where_a_key_is_asked_for(
    made: Run, keys: "Keys", tmp_path: Path
) -> None:
    assert isinstance(sign_off(made.path, tmp_path / "bundle", Signer()), SignOff)
    shutil.copytree(made.checkpoint, tmp_path / "model")
    (fault,) = faults(tmp_path, Proof(public_key=keys.public))
    assert "the bundle is unsigned" in fault


@pytest.mark.parametrize("content", ["", "no key", "-----BEGIN PRIVATE KEY-----\nx\n"])
def test_a_key_that_is_none_is_refused_before_anything_is_written(
    made: Run, keys: "Keys", tmp_path: Path, content: str
) -> None:
    assert keys.private.is_file()
    (tmp_path / "bad.pem").write_text(content)
    with pytest.raises(UsageError, match=r"bad\.pem' cannot be used"):
        sign_off(made.path, tmp_path / "bundle", Signer(key=tmp_path / "bad.pem"))
    assert not (tmp_path / "bundle").exists()


def test_the_statement_is_one_that_in_toto_s_library_takes(folder: Path) -> None:
    from google.protobuf.json_format import ParseDict  # noqa: PLC0415 - an extra
    from in_toto_attestation.predicates.test_result.v0 import (  # noqa: PLC0415 - an extra
        test_result_pb2,
    )
    from in_toto_attestation.v1.statement import Statement  # noqa: PLC0415 - an extra

    said = json.loads((folder / "bundle" / "statement.json").read_text())
    statement = Statement([], "", {})
    ParseDict(said, statement.pb)
    statement.validate()
    predicate = ParseDict(said["predicate"], test_result_pb2.TestResult())
    assert predicate.result == "PASSED"


def test_the_command_signs_and_checks(made: Run, keys: "Keys", tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    done = typed("signoff", made.path, "--out", bundle, "--sign-key", keys.private)
    assert done.code == 0, done.err
    check = ("signoff", "--check", bundle, made.checkpoint, "--public-key", keys.public)
    assert typed(*check).code == 0
    (made.path / "unrelated").touch()
    assert "signature holds" in typed(*check).out
