"""Write a sign-off bundle: everything that a release rests on, in one folder.

It appears whole or not at all. What is copied is hashed after it was copied, and the checkpoint is
looked at before and after, so that the bundle speaks of the bytes that were judged.
"""

import dataclasses
import json
import shutil
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

from harness import doors, score
from harness.artifacts import RunRecord, SignOff, Surroundings, Verdict, save
from harness.baselines import versions
from harness.errors import RunDirectoryError
from harness.evidence import folder_of
from harness.installed import ENVIRONMENT_FILE
from harness.models import files_of, unchanged
from harness.report import REPORT_FILES, write_report
from harness.rundir import CHAIN_FILE, RECIPE_FILE
from harness.runs import plain_name
from harness.signoff.card import CARD_FILE, card_of
from harness.signoff.demands import Looked
from harness.signoff.folders import all_files, beside, hashes_of
from harness.signoff.results import RESULTS_FOLDER, entries_of, yaml_of
from harness.signoff.signing import Signer
from harness.signoff.statement import statement_of
from harness.stages import BASELINE_FOLDER, JUDGE, STAGES

BUNDLE_FILE = "bundle.json"
SIGNATURE_FILE = "bundle.sig"
CHECKPOINT_SIGNATURE = "checkpoint.sig"
STATEMENT_FILE = "statement.json"
VERDICT_FILE = "verdict.json"
EVIDENCE = "evidence"
LOCKS = "environment"
_ARM_FOLDERS = ("samples", "tasks")
_BESIDE_STAGES = ("plan.json", "calibration.safetensors", "deployment.json", CHAIN_FILE)
_OF_BASELINE = ("deployment.json", "probe.json", "entry.json", "samples", "tasks", "again")


def write_bundle(run_dir: Path, looked: Looked, out: Path, signer: Signer) -> SignOff:
    """Write the bundle of a run that nothing stands against.

    Args:
        run_dir: of the run.
        looked: what was found in it.
        out: the bundle's folder, which is new or empty.
        signer: with what it is signed.

    Raises:
        EvidenceError: the checkpoint was changed meanwhile.
        UsageError: the folder cannot be written, or the key cannot be used.
    """
    record = looked.record
    verdict = verdict_of(record)
    folder = folder_of(run_dir, record.recipe)
    check_out(out, run_dir, folder)
    partial = doors.partial_of(out)
    partial.parent.mkdir(parents=True, exist_ok=True)
    doors.make_anew(partial)
    try:
        with unchanged(folder, str(verdict.checkpoint_digest), meanwhile="signed off"):
            signoff = outlined(record, verdict, folder)
            _copy_evidence(run_dir, partial)
            _write_locks(looked.surroundings, partial)
            write_report(record, into=partial)
            for name in REPORT_FILES[1:]:
                (partial / name).unlink()
            _write_texts(texts_of(record, verdict, signoff), partial)
            signoff = _sealed(verdict, signoff, partial, folder, signer)
        doors.remove(out)
        partial.rename(out)
    finally:
        doors.remove(partial)
    return signoff


def check_out(out: Path, run_dir: Path, folder: Path) -> None:
    """Refuse a folder that a bundle cannot become.

    Raises:
        RunDirectoryError: it holds files, or lies within what is read.
    """
    doors.check_folder(out)
    doors.check_apart(out, [run_dir, folder])
    if out.is_dir() and any(out.iterdir()):
        message = f"'{out}' holds files already. Name a new folder, or an empty one."
        raise RunDirectoryError(message)


def verdict_of(record: RunRecord) -> Verdict:
    """Return the verdict of a run that has one."""
    if record.verdict is None:
        message = "the run has no verdict"
        raise AssertionError(message)
    return record.verdict


def outlined(record: RunRecord, verdict: Verdict, folder: Path) -> SignOff:
    """Return what the bundle says, but for its own files."""
    served = record.deployment
    return SignOff(
        title=verdict.title,
        summary=verdict.summary,
        model=verdict.model,
        baseline_digest=str(verdict.baseline_digest),
        scheme=verdict.scheme,
        suite=verdict.suite,
        suite_digest=record.recipe.suite.digest,
        signed_off=f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
        harness=f"harness {versions()['harness']}",
        engine=f"{served.engine} {served.version}" if served else record.recipe.engine.name,
        scope=verdict.scope,
        checkpoint_digest=str(verdict.checkpoint_digest),
        checkpoint=hashes_of(files_of(folder)),
        beside=hashes_of(beside(folder)),
        files={},
    )


def _copy_evidence(run_dir: Path, into: Path) -> None:
    """Copy the records and the answers, in the layout of the run directory."""
    for name in _evidence_of(run_dir):
        found, target = run_dir / name, into / EVIDENCE / name
        if name == JUDGE.file:
            target = into / VERDICT_FILE
        target.parent.mkdir(parents=True, exist_ok=True)
        if found.is_dir():
            shutil.copytree(found, target)
        else:
            shutil.copyfile(found, target)


def _evidence_of(run_dir: Path) -> Iterator[str]:
    stages = [stage.file for stage in STAGES]
    baseline = [f"{BASELINE_FOLDER}/{name}" for name in _OF_BASELINE]
    named = (RECIPE_FILE, ENVIRONMENT_FILE, *stages, *_BESIDE_STAGES, *_ARM_FOLDERS, *baseline)
    for name in dict.fromkeys(named):
        if (run_dir / name).exists():
            yield name


def _write_locks(surroundings: tuple[Surroundings, ...], into: Path) -> None:
    """Write each environment of the run as a lock file, and the image as its name."""
    folder = into / LOCKS
    folder.mkdir()
    for seen in surroundings:
        for environment in seen.environments:
            doors.write_atomically(folder / f"{environment.name}.lock.txt", environment.lock)
        if seen.image:
            doors.write_atomically(folder / "image.txt", f"{seen.image}\n")


def texts_of(
    record: RunRecord, verdict: Verdict, signoff: SignOff, *, is_signed_off: bool = True
) -> Mapping[str, str]:
    """Return what is published beside a checkpoint: the card and the results, by path."""
    suite = record.recipe.suite
    data_sets = score.data_sets_of(suite)
    entries = entries_of(verdict, suite, data_sets, signoff.signed_off)
    return {
        CARD_FILE: card_of(record, verdict, signoff, data_sets, is_signed_off=is_signed_off),
        f"{RESULTS_FOLDER}/{plain_name(suite.name)}.yaml": yaml_of(entries),
    }


def _write_texts(texts: Mapping[str, str], into: Path) -> None:
    for name, text in texts.items():
        (into / name).parent.mkdir(exist_ok=True)
        doors.write_atomically(into / name, text)


def _sealed(
    verdict: Verdict, signoff: SignOff, into: Path, folder: Path, signer: Signer
) -> SignOff:
    """Write what vouches for all the rest: the statement, bundle.json, the signatures."""
    statement = statement_of(verdict, signoff, sha256_of_verdict(into))
    doors.write_atomically(into / STATEMENT_FILE, json.dumps(statement, indent=1) + "\n")
    if signer.is_asked:
        signer.sign(folder, into=into / CHECKPOINT_SIGNATURE)
    files = {name: into / name for name in all_files(into)}
    signoff = dataclasses.replace(signoff, files=hashes_of(files))
    save(signoff, into / BUNDLE_FILE)
    if signer.is_asked:
        signer.sign(into, into=into / SIGNATURE_FILE)
    return signoff


def sha256_of_verdict(bundle: Path) -> str:
    """Return the sha256 of a bundle's verdict.

    Raises:
        ModelError: it cannot be read.
    """
    return hashes_of({VERDICT_FILE: bundle / VERDICT_FILE})[VERDICT_FILE]
