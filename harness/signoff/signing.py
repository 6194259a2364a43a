"""Signatures through OpenSSF model-signing, an extra: the only place that knows it.

A signature covers a whole folder: each file's name and sha256, in an in-toto statement inside a
Sigstore bundle. With a key or a certificate nothing is asked over a network. Keyless signing asks
Sigstore's public services, so it is done only where it is asked for by name.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import PrerequisiteError, UsageError

PASSWORD = "HARNESS_SIGN_PASSWORD"  # noqa: S105 - the name of a variable
_INSTALL = "Install it: pip install 'harness-ptq-gate[sign]'."
_DIGESTS = re.compile(r": Expected \\*'Digest\(.*?(?=[\"']?, [\"']Hash mismatch|\Z)", re.DOTALL)
"""Of a list that was printed; a digest's 32 bytes may hold any quotes and brackets."""
_LONGEST = 300


@dataclass(frozen=True, kw_only=True, slots=True)
class Signer:
    """With what a bundle is signed."""

    key: Path | None = None
    """A private key on an elliptic curve, PEM."""
    certificate: Path | None = None
    """Of that key, PEM."""
    chain: tuple[Path, ...] = ()
    """From that certificate towards the root, PEM."""
    keyless: bool = False
    """With an identity that Sigstore's services confirm."""

    @property
    def is_asked(self) -> bool:
        """Return whether anything is to be signed."""
        return self.keyless or bool(self.key or self.certificate or self.chain)

    def check(self) -> None:
        """Refuse what cannot sign, before anything is written.

        Raises:
            UsageError: options that do not belong together, or files that are no keys.
            PrerequisiteError: model-signing is not installed.
        """
        if not self.is_asked:
            return
        if self.keyless and (self.key or self.certificate or self.chain):
            message = "--sign-keyless has no key of its own. Leave out --sign-key and certificates."
            raise UsageError(message)
        if not self.keyless and self.key is None:
            message = "a certificate signs nothing without its key. Name it too: --sign-key KEY."
            raise UsageError(message)
        if self.chain and self.certificate is None:
            message = "--certificate-chain belongs to a certificate. Name it: --sign-certificate."
            raise UsageError(message)
        self._configured()

    def sign(self, folder: Path, *, into: Path) -> None:
        """Sign every file of `folder` but the signature itself.

        Raises:
            UsageError: the key cannot be used.
        """
        config = self._configured()
        config.set_hashing_config(_hashing(folder, into))
        with _as_usage(f"'{folder}' cannot be signed"):
            config.sign(folder, into)

    def _configured(self) -> Any:  # noqa: ANN401 - model-signing's own, which is an extra
        config = _library().signing.Config()
        if self.keyless:
            return config.use_sigstore_signer(use_ambient_credentials=True)
        with _as_usage(f"the private key '{self.key}' cannot be used"):
            signer = config.use_elliptic_key_signer(
                private_key=self.key, password=os.environ.get(PASSWORD)
            )
        if self.certificate is None:
            return signer
        with _as_usage(f"the certificate '{self.certificate}' cannot be used"):
            return config.use_certificate_signer(
                private_key=self.key,
                signing_certificate=self.certificate,
                certificate_chain=self.chain,
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class Proof:
    """With what a signature is checked."""

    public_key: Path | None = None
    chain: tuple[Path, ...] = ()
    """Certificates up to the root that is trusted, PEM."""
    identity: str | None = None
    """Of a keyless signature, such as an e-mail address."""
    provider: str | None = None
    """URL of the OpenID provider that confirmed it."""

    @property
    def is_asked(self) -> bool:
        """Return whether a signature has to be there."""
        return bool(self.public_key or self.chain or self.identity or self.provider)

    def check(self) -> None:
        """Refuse options that do not belong together.

        Raises:
            UsageError: with what is missing or too much.
            PrerequisiteError: model-signing is not installed.
        """
        ways = (self.public_key, self.chain, self.identity or self.provider)
        if sum(bool(way) for way in ways) > 1:
            message = (
                "a bundle has one signature. Name --public-key, --certificate-chain, or --identity "
                "with --identity-provider."
            )
            raise UsageError(message)
        if bool(self.identity) != bool(self.provider):
            message = "--identity and --identity-provider belong together: who, and who says so."
            raise UsageError(message)
        if self.is_asked:
            self._configured()

    def fault(self, folder: Path, signature: Path) -> str | None:
        """Return why the signature does not hold for `folder`; None where it does.

        Raises:
            UsageError: the key or a certificate cannot be used.
        """
        config = self._configured()
        config.set_hashing_config(_hashing(folder, signature))
        try:
            config.verify(folder, signature)
        except Exception as error:  # noqa: BLE001 - whatever a stranger's file makes it raise
            return _line(error)
        return None

    def _configured(self) -> Any:  # noqa: ANN401 - model-signing's own, which is an extra
        config = _library().verifying.Config()
        if self.public_key:
            with _as_usage(f"the public key '{self.public_key}' cannot be used"):
                return config.use_elliptic_key_verifier(public_key=self.public_key)
        if self.chain:
            named = ", ".join(f"'{path}'" for path in self.chain)
            with _as_usage(f"the certificates {named} cannot be used"):
                return config.use_certificate_verifier(certificate_chain=self.chain)
        return config.use_sigstore_verifier(identity=self.identity, oidc_issuer=self.provider)


def _hashing(folder: Path, signature: Path) -> Any:  # noqa: ANN401 - model-signing's own
    own = [signature.relative_to(folder)] if signature.is_relative_to(folder) else []
    hashing = _library().hashing.Config()
    # A bundle holds plain files only; a checkpoint may be links into a cache.
    hashing.set_allow_symlinks(not own)
    return hashing.set_ignored_paths(paths=own, ignore_git_paths=not own)


def _library() -> Any:  # noqa: ANN401 - untyped where it is not installed
    try:
        import model_signing  # noqa: PLC0415 - an extra
    except ImportError as error:
        message = f"signatures need OpenSSF model-signing ({error}). {_INSTALL}"
        raise PrerequisiteError(message) from error
    return model_signing


@contextmanager
def _as_usage(what: str) -> Iterator[None]:
    """Turn what a key's file makes the library raise into one line.

    Raises:
        UsageError: with the library's reason.
    """
    try:
        yield
    except Exception as error:
        message = f"{what}: {_line(error)}. Name a PEM file of a key on an elliptic curve."
        raise UsageError(message) from error


def _line(error: Exception) -> str:
    """Return what an error says, in one line without digests."""
    text = _DIGESTS.sub("", str(error)) or type(error).__name__
    line = " ".join(text.split())
    return line[:_LONGEST].removesuffix(".")
