"""Scores that were made before are held against what a run compares with, before anything runs."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from harness import baselines
from harness.artifacts import BaselineInputs, EngineSpec, save
from harness.baselines import Kept, ScoredArm
from harness.errors import BaselineError, ReasonCode
from tests.baselines.conftest import ENGINE, VERSIONS
from tests.smoke.scripted import BASELINE, SET

Keep = Callable[..., Kept]
Inputs = Callable[..., BaselineInputs]
SERVER = EngineSpec(name="vllm", version="0.25.0", numerics="deployed", device="cuda", dtype="b")


def scored(path: Path) -> ScoredArm:
    found = baselines.find_scored(str(path))
    assert found is not None
    return found


def refusal(path: Path, now: BaselineInputs) -> str:
    with pytest.raises(BaselineError) as caught:
        baselines.refuse_stale(scored(path), now)
    assert caught.value.reason is ReasonCode.STALE_BASELINE
    assert "\n" not in str(caught.value)
    return str(caught.value)


STALE: list[tuple[dict[str, object], str]] = [
    ({"suite_digest": "c" * 64}, "the suite was 'tiny bbbbbbbbbbbb' and is 'tiny cccccccccccc'"),
    ({"model_digest": "c" * 64}, "the model's digest was 'aaaaaaaaaaaa' and is 'cccccccccccc'"),
    ({"engine": replace(ENGINE, name="vllm")}, "engine was 'reference' and is 'vllm'"),
    ({"engine": replace(ENGINE, dtype="bfloat16")}, "dtype was 'float32' and is 'bfloat16'"),
    ({"engine": replace(ENGINE, arguments=("a=1",))}, "arguments was '' and is 'a=1'"),
    ({"engine": replace(ENGINE, max_model_len=9)}, "max model len was '256' and is '9'"),
    ({"versions": VERSIONS | {"lm_eval": "0.5.0"}}, "lm_eval was '0.4.13' and is '0.5.0'"),
    ({"versions": VERSIONS | {"torch": "3.0"}}, "torch was '2.13.0' and is '3.0'"),
]


@pytest.mark.parametrize(("change", "words"), STALE, ids=lambda v: str(v)[:40])
def test_what_changed_is_named_with_its_old_and_new_value(
    keep: Keep, inputs: Inputs, change: dict[str, object], words: str
) -> None:
    assert words in refusal(keep().folder, inputs(**change))


def test_a_bundle_is_held_against_the_run_like_a_folder(
    keep: Keep, inputs: Inputs, tmp_path: Path
) -> None:
    path = baselines.export_baseline(keep(), tmp_path / "bundle")
    baselines.refuse_stale(scored(path), inputs())
    assert "the suite was" in refusal(path, inputs(suite_digest="c" * 64))


def test_every_change_is_named_at_once(keep: Keep, inputs: Inputs) -> None:
    now = inputs(suite_digest="c" * 64, versions=VERSIONS | {"lm_eval": "0.5.0"})
    words = refusal(keep().folder, now)
    assert "the suite was" in words
    assert "lm_eval was" in words


def test_hardware_may_differ(keep: Keep, inputs: Inputs) -> None:
    """The verdict names it; kernels are part of what is judged."""
    other = replace(ENGINE, device="cuda", tensor_parallel_size=2, numerics="deployed")
    baselines.refuse_stale(scored(keep().folder), inputs(engine=other))


def test_a_torch_that_only_sends_requests_may_differ(keep: Keep, inputs: Inputs) -> None:
    kept = keep(engine=SERVER)
    now = inputs(engine=SERVER, versions=VERSIONS | {"torch": "3.0"})
    baselines.refuse_stale(scored(kept.folder), now)
    newer = replace(SERVER, version="0.32.0")
    assert "version was '0.25.0' and is '0.32.0'" in refusal(kept.folder, inputs(engine=newer))


def test_a_checkpoint_that_does_not_name_its_model_has_any_baseline(
    keep: Keep, inputs: Inputs
) -> None:
    now = inputs(model_digest="c" * 64)
    baselines.refuse_stale(scored(keep().folder), now, knows_model=False)


def test_scores_that_do_not_say_what_they_were_made_from_are_no_baseline(keep: Keep) -> None:
    kept = keep()
    (kept.folder / "entry.json").unlink()
    with pytest.raises(BaselineError, match=r"entry.json"):
        scored(kept.folder)


def test_a_baseline_without_the_second_run_that_it_speaks_of_is_refused(keep: Keep) -> None:
    kept = keep()
    shutil.rmtree(kept.folder / "again")
    with pytest.raises(BaselineError, match="do not go together"):
        scored(kept.folder)


def test_answers_to_another_smoke_set_are_stale(keep: Keep, inputs: Inputs) -> None:
    kept = keep()
    baselines.refuse_stale(scored(kept.folder), inputs(), smoke=SET)
    digest = kept.entry.inputs.model_digest
    deployment = replace(BASELINE.deployment, checkpoint_digest=digest, declared=())
    answers = replace(BASELINE, arm="baseline", deployment=deployment)
    path = kept.folder / baselines.PROBE_FILE
    save(answers, path, made_from=baselines.asked_with(SET))
    answered = scored(kept.folder)
    baselines.refuse_stale(answered, inputs(), smoke=SET)
    baselines.refuse_stale(answered, inputs(), smoke=None)
    with pytest.raises(BaselineError, match=r"the smoke set was '.*' and is '666666666666'"):
        baselines.refuse_stale(answered, inputs(), smoke=replace(SET, digest="6" * 64))
