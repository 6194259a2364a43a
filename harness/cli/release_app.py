"""`harness signoff` and `harness publish` as typer takes them."""

from pathlib import Path
from typing import Annotated

import typer

from harness.cli import options as opt
from harness.cli.command import command
from harness.cli.console import Result

ReleasedRun = Annotated[
    Path, typer.Argument(metavar="RUN_DIR", help="A run that ended GO; with --check: CHECKPOINT.")
]
NewBundle = Annotated[Path | None, typer.Option("--out", help="The bundle's folder, which is new.")]
CheckedBundle = Annotated[
    Path | None,
    typer.Option("--check", help="Instead: hold this bundle against the folder of a checkpoint."),
]
SignKey = Annotated[
    Path | None,
    typer.Option(
        "--sign-key",
        help="Sign with this private key (PEM, elliptic curve; password: $HARNESS_SIGN_PASSWORD).",
    ),
]
SignCertificate = Annotated[
    Path | None, typer.Option("--sign-certificate", help="Certificate of --sign-key (PEM).")
]
CertificateChain = Annotated[
    list[Path] | None,
    typer.Option(
        "--certificate-chain", help="Certificates (PEM) up to the root; --check trusts them."
    ),
]
SignKeyless = Annotated[
    bool,
    typer.Option("--sign-keyless", help="Sign with an identity, through Sigstore's services."),
]
PublicKey = Annotated[
    Path | None, typer.Option("--public-key", help="The bundle must be signed with its key (PEM).")
]
Identity = Annotated[
    str | None, typer.Option("--identity", help="Who must have signed it without a key.")
]
IdentityProvider = Annotated[
    str | None, typer.Option("--identity-provider", help="URL of who vouches for --identity.")
]
PublishedRun = Annotated[Path, typer.Argument(metavar="RUN_DIR", help="A run that ended GO.")]
Repository = Annotated[str, typer.Option("--repo", help="Repository of models, OWNER/NAME.")]
PublishedBundle = Annotated[
    Path | None, typer.Option("--bundle", help="Its sign-off: card and results are taken from it.")
]
Private = Annotated[
    bool, typer.Option("--private", help="Nobody else sees the repository, where it is new.")
]
LedgerDir = Annotated[
    Path | None,
    typer.Option("--ledger", help="Make the run the anchor of --cell in this nightly's folder."),
]
AnchoredCell = Annotated[str | None, typer.Option("--cell", help="Name of the cell in --ledger.")]


def add_release(app: typer.Typer) -> None:
    """Add both commands to `app`."""
    _add_signoff(app)
    _add_publish(app)


def _add_signoff(app: typer.Typer) -> None:

    @command(
        app,
        "signoff runs/canary-nvfp4-1a2b3c4d --out canary.signoff --sign-key release.pem",
    )
    def signoff(  # noqa: PLR0913 - one parameter an option
        *,
        run_dir: ReleasedRun,
        out: NewBundle = None,
        check: CheckedBundle = None,
        sign_key: SignKey = None,
        sign_certificate: SignCertificate = None,
        certificate_chain: CertificateChain = None,
        sign_keyless: SignKeyless = False,
        public_key: PublicKey = None,
        identity: Identity = None,
        identity_provider: IdentityProvider = None,
        ledger: LedgerDir = None,
        cell: AnchoredCell = None,
        paranoid: opt.Paranoid = False,
    ) -> Result:
        """Sign a run off: one bundle, which others check without the run and without a network.

        Refused, with everything that is missing: exit 4 for NO-GO, 5 for INCONCLUSIVE, 2 for the
        rest. `harness signoff --check BUNDLE CHECKPOINT` ends with 4, naming each file that
        differs.
        """
        from harness.cli import commands, releasing
        from harness.signoff import Proof, Signer

        commands.set_paranoid(on=paranoid or check is not None)
        chain = tuple(certificate_chain or ())
        if check is not None:
            proof = Proof(
                public_key=public_key, chain=chain, identity=identity, provider=identity_provider
            )
            return releasing.checked(check, run_dir, proof)
        signer = Signer(
            key=sign_key, certificate=sign_certificate, chain=chain, keyless=sign_keyless
        )
        return releasing.signed_off(run_dir, out, signer, releasing.Anchoring(ledger, cell))


def _add_publish(app: typer.Typer) -> None:
    @command(
        app,
        "publish runs/canary-nvfp4-1a2b3c4d --repo org/canary-nvfp4 --bundle canary.signoff",
    )
    def publish(  # noqa: PLR0913 - one parameter an option
        *,
        run_dir: PublishedRun,
        repo: Repository,
        bundle: PublishedBundle = None,
        public_key: PublicKey = None,
        certificate_chain: CertificateChain = None,
        private: Private = False,
    ) -> Result:
        """Upload what was judged, its card and its results to a Hub, nothing else, in one commit.

        Without --bundle the run must have ended GO. The Hub is the public one, or $HF_ENDPOINT; it
        asks who you are by `hf auth login` or $HF_TOKEN.
        """
        from harness.cli import releasing
        from harness.signoff import Proof, Publication

        proof = Proof(public_key=public_key, chain=tuple(certificate_chain or ()))
        order = Publication(repo=repo, bundle=bundle, proof=proof, private=private)
        return releasing.published(run_dir, order)
