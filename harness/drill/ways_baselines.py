"""Ways that compare the checkpoint with what is no baseline of it."""

import shutil
from pathlib import Path
from typing import Any

from harness.artifacts import read_samples, write_samples
from harness.baselines import folder_of, inputs_of
from harness.drill.scene import (
    Ending,
    Scene,
    edit,
    refused,
)
from harness.drill.way import MODEL, Way
from harness.errors import ExitCode, HarnessError
from harness.gate import judge
from harness.models import open_source
from harness.recipe import load_suite
from harness.runs import read_run
from harness.score import read_arm
from harness.stages import (
    BASELINE_FOLDER,
)


def _baseline_is_the_candidate(scene: Scene) -> Ending:
    good = scene.good()
    return scene.gate(good, str(good), scene.folder / "run")


def _baseline_is_quantized(scene: Scene) -> Ending:
    return scene.gate(scene.good(), str(scene.bad()), scene.folder / "run")


def _baseline_without_declaration(scene: Scene) -> Ending:
    other = scene.bad()
    (other / "hf_quant_config.json").unlink()
    edit(other / "config.json", lambda v: v.pop("quantization_config"))
    return scene.gate(scene.good(), str(other), scene.folder / "run")


def _baseline_of_another_architecture(scene: Scene) -> Ending:
    model = Path(shutil.copytree(open_source(MODEL).path, scene.folder / "model"))

    def widen(values: Any) -> None:  # noqa: ANN401 - JSON
        values["text_config"]["num_experts"] *= 2

    edit(model / "config.json", widen)
    return scene.gate(scene.good(), str(model), scene.folder / "run")


def _stored_under_another_name(scene: Scene) -> Ending:
    """Let the store's entry of one suite lie where that of another is looked for."""
    run = scene.finished()
    other = {"suite": "other", "suite_digest": "0" * 64}
    edit(_entry_of(run) / "entry.json", lambda v: v["inputs"].update(other), mend=True)
    shutil.rmtree(run / BASELINE_FOLDER)
    return scene.again(run)


def _stored_answers_taken_away(scene: Scene) -> Ending:
    """Take an answer of the baseline in the store away, as if it had not been asked."""
    run = scene.finished()
    path = next(iter(sorted((_entry_of(run) / "samples").glob("*.jsonl"))))
    write_samples(read_samples(path)[:-1], path)
    shutil.rmtree(run / BASELINE_FOLDER)
    return scene.again(run)


def _entry_of(run: Path) -> Path:
    """Return the run's baseline in the store."""
    trial = read_run(run).recipe
    return folder_of(inputs_of(open_source(MODEL), trial.engine, trial.suite).key)


def _arms_swapped(scene: Scene) -> Ending:
    run = scene.finished()
    try:
        verdict = judge(
            load_suite(scene.setting.suite),
            read_arm(run),
            read_arm(run / BASELINE_FOLDER),
            verified=True,
        )
    except HarnessError as error:
        return refused(error)
    return Ending(ExitCode.GO, verdict.decision, (), verdict.summary)


WAYS: tuple[Way, ...] = (
    Way(
        name="baseline-is-the-candidate",
        what="the checkpoint is compared with itself",
        go=_baseline_is_the_candidate,
        cause="is quantized|the candidate itself",
    ),
    Way(
        name="baseline-is-quantized",
        what="the checkpoint is compared with another quantized one",
        go=_baseline_is_quantized,
        cause="is quantized: its configuration declares",
    ),
    Way(
        name="baseline-hides-that-it-is-quantized",
        what="the same, and the other one's declarations are deleted",
        go=_baseline_without_declaration,
        cause="is quantized: '.*' is stored as",
    ),
    Way(
        name="baseline-of-another-architecture",
        what="the baseline's configuration speaks of another number of experts",
        go=_baseline_of_another_architecture,
        cause="of another architecture .*num_experts",
    ),
    Way(
        name="stored-under-another-name",
        what="the store's baseline of another suite lies where this one's is looked for",
        go=_stored_under_another_name,
        cause="is not what its key says",
    ),
    Way(
        name="stored-answers-taken-away",
        what="an answer of the baseline in the store is taken away",
        go=_stored_answers_taken_away,
        cause="is not what its key says.*is not the file that was scored",
    ),
    Way(
        name="arms-swapped",
        what="the judge is given the candidate as the baseline and the baseline as the candidate",
        go=_arms_swapped,
        cause="incomparable .*those of a baseline",
    ),
)
