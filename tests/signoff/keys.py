"""Keys and certificates on elliptic curves, made for one test."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID


class Keys(NamedTuple):
    """A pair of keys as PEM files."""

    private: Path
    public: Path


class Certificates(NamedTuple):
    """A key whose certificate a root has signed, as PEM files."""

    private: Path
    leaf: Path
    root: Path


def make_key(folder: Path, name: str = "release") -> Keys:
    key = ec.generate_private_key(ec.SECP256R1())
    keys = Keys(folder / f"{name}.pem", folder / f"{name}.pub.pem")
    keys.private.write_bytes(_private(key))
    keys.public.write_bytes(
        key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )
    return keys


def make_certificates(folder: Path, name: str = "root") -> Certificates:
    root, leaf = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    made = Certificates(*(folder / f"{name}.{part}.pem" for part in ("key", "leaf", "root")))
    made.private.write_bytes(_private(leaf))
    issuer = _name(name)
    made.root.write_bytes(_certificate(issuer, issuer, root, root, is_root=True))
    made.leaf.write_bytes(_certificate(_name("release"), issuer, leaf, root, is_root=False))
    return made


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _private(key: ec.EllipticCurvePrivateKey) -> bytes:
    content: bytes = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return content


def _certificate(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    signer: ec.EllipticCurvePrivateKey,
    *,
    is_root: bool,
) -> bytes:
    now = datetime.now(UTC)
    usage = x509.KeyUsage(
        digital_signature=not is_root,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=is_root,
        crl_sign=is_root,
        encipher_only=False,
        decipher_only=False,
    )
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=30))
        .add_extension(x509.BasicConstraints(ca=is_root, path_length=None), critical=True)
        .add_extension(usage, critical=True)
    )
    if not is_root:
        purpose = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING])
        builder = builder.add_extension(purpose, critical=False)
    signed = builder.sign(signer, hashes.SHA256())
    content: bytes = signed.public_bytes(serialization.Encoding.PEM)
    return content
