"""Attacks that compare the checkpoint with what is no baseline of it."""

import shutil
from pathlib import Path
from typing import Any

from harness.artifacts import read_samples, write_samples
from harness.baselines import folder_of, inputs_of
from harness.drill.attack import Attacks
from harness.drill.attempt import MODEL
from harness.drill.sandbox import (
    Ending,
    Sandbox,
    edit,
    refused,
)
from harness.errors import ExitCode, HarnessError
from harness.gate import judge
from harness.models import open_source
from harness.recipe import load_suite
from harness.runs import read_run
from harness.score import read_arm
from harness.stages import (
    BASELINE_FOLDER,
)


def _entry_of(run: Path) -> Path:
    """Return the run's baseline in the store."""
    trial = read_run(run).recipe
    return folder_of(inputs_of(open_source(MODEL), trial.engine, trial.suite).key)


attack = Attacks()


@attack("the checkpoint is compared with itself", "is quantized|the candidate itself")
def _baseline_is_the_candidate(sandbox: Sandbox) -> Ending:
    good = sandbox.good()
    return sandbox.gate(good, str(good), sandbox.folder / "run")


@attack(
    "the checkpoint is compared with another quantized one",
    "is quantized: its configuration declares",
)
def _baseline_is_quantized(sandbox: Sandbox) -> Ending:
    return sandbox.gate(sandbox.good(), str(sandbox.bad()), sandbox.folder / "run")


@attack("the same, and the other one's declarations are deleted", "is quantized: '.*' is stored as")
def _baseline_hides_that_it_is_quantized(sandbox: Sandbox) -> Ending:
    other = sandbox.bad()
    (other / "hf_quant_config.json").unlink()
    edit(other / "config.json", lambda v: v.pop("quantization_config"))
    return sandbox.gate(sandbox.good(), str(other), sandbox.folder / "run")


@attack(
    "the baseline's configuration speaks of another number of experts",
    "of another architecture .*num_experts",
)
def _baseline_of_another_architecture(sandbox: Sandbox) -> Ending:
    model = Path(shutil.copytree(open_source(MODEL).path, sandbox.folder / "model"))

    def widen(values: Any) -> None:  # noqa: ANN401 - JSON
        values["text_config"]["num_experts"] *= 2

    edit(model / "config.json", widen)
    return sandbox.gate(sandbox.good(), str(model), sandbox.folder / "run")


@attack(
    "the store's baseline of another suite lies where this one's is looked for",
    "is not what its key says",
)
def _stored_under_another_name(sandbox: Sandbox) -> Ending:
    """Let the store's entry of one suite lie where that of another is looked for."""
    run = sandbox.finished()
    other = {"suite": "other", "suite_digest": "0" * 64}
    edit(_entry_of(run) / "entry.json", lambda v: v["inputs"].update(other), mend=True)
    shutil.rmtree(run / BASELINE_FOLDER)
    return sandbox.again(run)


@attack(
    "an answer of the baseline in the store is taken away",
    "is not what its key says.*is not the file that was scored",
)
def _stored_answers_taken_away(sandbox: Sandbox) -> Ending:
    """Take an answer of the baseline in the store away, as if it had not been asked."""
    run = sandbox.finished()
    path = next(iter(sorted((_entry_of(run) / "samples").glob("*.jsonl"))))
    write_samples(read_samples(path)[:-1], path)
    shutil.rmtree(run / BASELINE_FOLDER)
    return sandbox.again(run)


@attack(
    "the judge is given the candidate as the baseline and the baseline as the candidate",
    "incomparable .*those of a baseline",
)
def _arms_swapped(sandbox: Sandbox) -> Ending:
    run = sandbox.finished()
    try:
        verdict = judge(
            load_suite(sandbox.setting.suite),
            read_arm(run),
            read_arm(run / BASELINE_FOLDER),
            verified=True,
        )
    except HarnessError as error:
        return refused(error)
    return Ending(ExitCode.GO, verdict.decision, (), verdict.summary)


ATTACKS = tuple(attack.declared)
