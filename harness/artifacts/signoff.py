"""A release that was signed off: what the bundle is about, and what lies in it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True, slots=True)
class SignOff:
    """bundle.json: the root of a sign-off bundle, which names every other file by its sha256."""

    kind: Literal["harness-signoff"] = "harness-signoff"
    version: Literal[1] = 1
    title: str
    """`GO`, or `GO WITH WAIVERS`."""
    summary: str
    model: str
    """The unquantized model, as typed."""
    baseline_digest: str
    """sha256 over the names and contents of its files."""
    scheme: str
    suite: str
    suite_digest: str
    signed_off: str
    """UTC, such as `2031-12-31T01:02:03Z`."""
    harness: str
    engine: str
    """Name and version that served."""
    scope: tuple[str, ...]
    """The verdict's."""
    checkpoint_digest: str
    """sha256 over the names and contents of the checkpoint's files."""
    checkpoint: Mapping[str, str]
    """sha256 of each of its files, by path: what was judged."""
    beside: Mapping[str, str]
    """The same of files that may lie there too, and that no engine reads."""
    files: Mapping[str, str]
    """The same of every file of the bundle but this one and its signature."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Objection:
    """One reason why a run is not signed off."""

    exit_code: int
    """4 for NO-GO, 5 for INCONCLUSIVE, 2 for anything that is missing."""
    message: str
    """What is wrong, and what to do."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BundleCheck:
    """What became of a bundle that was held against a checkpoint."""

    signoff: SignOff
    faults: tuple[str, ...]
    """One line each, with the file's name; nothing where all is as it was signed off."""
    signature: str
    """What is known of it, as the end of a sentence that begins with `the bundle is`."""
    is_proven: bool
    """Whether a signature was checked with the key or the certificates that were given."""
