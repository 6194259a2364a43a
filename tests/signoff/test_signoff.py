"""A release is signed off where nothing is missing, else all that is missing is told at once."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard, parse_eval_result_entries

from harness.artifacts import (
    MissingEvidence,
    Objection,
    SignOff,
    Suite,
    Surroundings,
    Verdict,
    load,
)
from harness.errors import UsageError
from harness.installed import read_surroundings
from harness.recipe import load_suite
from harness.signoff import Signer, exit_code_of, sign_off
from tests.nouns import engine_spec
from tests.signoff.conftest import Run, recipe

UNSIGNED = Signer()


def objections(run: Run, out: Path) -> tuple[Objection, ...]:
    found = sign_off(run.path, out, UNSIGNED)
    assert not isinstance(found, SignOff)
    assert not out.exists()
    return found


def told(run: Run, out: Path) -> tuple[int, str]:
    """Return how a refusal ends, and its one line."""
    found = objections(run, out)
    assert len(found) == 1, found
    assert "\n" not in found[0].message
    return exit_code_of(found), found[0].message


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "bundle"


@pytest.fixture
def anew(tmp_path: Path) -> Callable[..., Run]:
    """Make a run that something is wrong with."""

    def make(asked: dict[str, object] | None = None, **changes: object) -> Run:
        return Run(tmp_path / "other", recipe(**(asked or {}))).make(**changes)  # type: ignore[arg-type]

    return make


@pytest.fixture(scope="module")
def bundle(made: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("bundle") / "small.signoff"
    assert isinstance(sign_off(made.path, out, UNSIGNED), SignOff)
    return out


def test_a_bundle_holds_all_that_a_release_rests_on(bundle: Path) -> None:
    held = {path.relative_to(bundle).as_posix() for path in bundle.rglob("*") if path.is_file()}
    assert held >= {
        "README.md",
        ".eval_results/tiny.yaml",
        "bundle.json",
        "environment/harness.lock.txt",
        "evidence/baseline/again/samples/canary_add.jsonl",
        "evidence/baseline/samples/canary_add.jsonl",
        "evidence/environment.json",
        "evidence/recipe.yaml",
        "evidence/samples/canary_add.jsonl",
        "report.html",
        "statement.json",
        "verdict.json",
    }
    assert not any("model.safetensors" in name for name in held)


def test_the_lock_pins_what_harness_computes_with(bundle: Path) -> None:
    lines = (bundle / "environment" / "harness.lock.txt").read_text().splitlines()
    torch = next(line for line in lines if line.startswith("torch=="))
    assert "RECORD sha256:" in torch


def test_the_card_s_model_index_holds_each_score(bundle: Path) -> None:
    card = ModelCard.load(bundle / "README.md")
    scored = [(r.dataset_name, r.metric_type, r.metric_value) for r in card.data.eval_results]
    assert scored == [("canary_add", "exact_match", 1.0)]
    assert "Signed off **GO**" in card.text


def test_the_results_are_those_that_the_hub_reads(bundle: Path) -> None:
    values = yaml.safe_load((bundle / ".eval_results" / "tiny.yaml").read_text())
    (entry,) = parse_eval_result_entries(values)
    assert (entry.dataset_id, entry.task_id, entry.value) == ("local/canary_add", "default", 1.0)


def test_the_statement_is_about_each_judged_file(bundle: Path) -> None:
    statement = json.loads((bundle / "statement.json").read_text())
    names = [subject["name"] for subject in statement["subject"]]
    assert names == ["config.json", "model.safetensors", "sub/vocabulary.txt", "tokenizer.json"]
    assert statement["predicateType"] == "https://in-toto.io/attestation/test-result/v0.1"
    assert statement["predicate"]["result"] == "PASSED"
    assert statement["predicate"]["passedTests"] == ["task:canary_add"]


def test_a_no_go_ends_with_4(anew: Callable[..., Run], out: Path) -> None:
    code, line = told(anew(lost=200), out)
    assert code == 4
    assert line.startswith("the verdict is NO-GO: ")


def test_an_inconclusive_verdict_ends_with_5(anew: Callable[..., Run], out: Path) -> None:
    code, line = told(anew(lost=15), out)
    assert code == 5
    assert line.startswith("the verdict is INCONCLUSIVE: ")


def test_a_suite_that_does_not_say_so_signs_nothing_off(
    made: Run, anew: Callable[..., Run], out: Path
) -> None:
    suite = dataclasses.replace(made.recipe.suite, signoff=False)
    code, line = told(anew({"suite": suite}), out)
    assert code == 2
    assert "suite 'tiny' is not one to sign off with" in line


def test_scores_alone_sign_nothing_off(anew: Callable[..., Run], out: Path) -> None:
    code, line = told(anew({"missing_evidence": MissingEvidence.GO}), out)
    assert (code, "--missing-evidence go" in line) == (2, True)


def test_declared_numerics_must_have_been_computed(anew: Callable[..., Run], out: Path) -> None:
    found = objections(anew(exercised=("weights:nvfp4",)), out)
    assert any("declares inputs:nvfp4" in one.message for one in found)


def test_without_the_baseline_s_second_run_nothing_is_signed_off(
    anew: Callable[..., Run], out: Path
) -> None:
    code, line = told(anew(rerun=False), out)
    assert (code, "second run (A/A) is not on record" in line) == (2, True)


def test_all_that_is_missing_is_told_at_once(
    made: Run, anew: Callable[..., Run], out: Path
) -> None:
    suite = dataclasses.replace(made.recipe.suite, signoff=False)
    found = objections(anew({"suite": suite}, lost=200, rerun=False), out)
    assert len(found) == 3
    assert exit_code_of(found) == 4


def other_environment(seen: Surroundings) -> Surroundings:
    first = seen.environments[0]
    packages = tuple(
        dataclasses.replace(one, version="0.1") if one.name == "torch" else one
        for one in first.packages
    )
    changed = dataclasses.replace(first, packages=packages)
    return dataclasses.replace(seen, environments=(changed,))


def test_a_run_of_two_environments_names_what_changed(
    made: Run, anew: Callable[..., Run], out: Path
) -> None:
    (seen,) = read_surroundings(made.path)
    code, line = told(anew(before=other_environment(seen)), out)
    assert code == 2
    assert "two environments: harness torch was 0.1 and is" in line


def test_the_same_packages_on_another_host_are_one_environment(
    made: Run, anew: Callable[..., Run], out: Path
) -> None:
    (seen,) = read_surroundings(made.path)
    run = anew(before=dataclasses.replace(seen, host="another"))
    assert isinstance(sign_off(run.path, out, UNSIGNED), SignOff)


def test_an_image_must_be_named_by_its_digest(anew: Callable[..., Run], out: Path) -> None:
    run = anew({"engine": engine_spec("docker", image="vllm/vllm-openai:latest")})
    code, line = told(run, out)
    assert (code, "named by no digest" in line) == (2, True)


def test_an_image_s_digest_pins_the_environment(anew: Callable[..., Run], out: Path) -> None:
    image = "vllm/vllm-openai@sha256:" + "a" * 64
    run = anew({"engine": engine_spec("docker", image=image)})
    assert isinstance(sign_off(run.path, out, UNSIGNED), SignOff)
    assert (out / "environment" / "image.txt").read_text() == f"{image}\n"


def test_a_server_s_environment_must_be_on_record(anew: Callable[..., Run], out: Path) -> None:
    code, line = told(anew({"engine": engine_spec("vllm", place="/nowhere/python")}), out)
    assert (code, "environment of vllm" in line) == (2, True)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "more/__pycache__/x.pyc", ".hidden"])
def test_a_file_that_no_verdict_covers_is_told(run: Run, out: Path, name: str) -> None:
    (run.checkpoint / name).parent.mkdir(parents=True, exist_ok=True)
    (run.checkpoint / name).write_text("x")
    code, line = told(run, out)
    assert (code, name in line) == (2, True)


@pytest.mark.parametrize(
    "name",
    [
        "checkpoint/config.json",
        "scorecard.json",
        "samples/canary_add.jsonl",
        "baseline/again/samples/canary_add.jsonl",
        "environment.json",
        "verdict.json",
    ],
)
def test_what_changed_since_the_verdict_is_not_signed_off(run: Run, out: Path, name: str) -> None:
    path = run.path / name
    path.write_bytes(path.read_bytes().replace(b"1", b"2").replace(b"small", b"smell"))
    try:
        code = exit_code_of(objections(run, out))
    except UsageError as error:
        code = error.exit_code
    assert code == 2


def test_another_second_run_than_was_judged_with_is_told(run: Run, out: Path) -> None:
    verdict = load(Verdict, run.path / "verdict.json")
    assert verdict.rerun_flip_rate == 0
    again = run.path / "baseline" / "again"
    other = Run(out.parent / "other", recipe()).make(lost=30)
    for name in ("scorecard.json", "samples/canary_add.jsonl"):
        (again / name).write_bytes((other.path / name).read_bytes())
    code, line = told(run, out)
    assert (code, "not the one that was judged with" in line) == (2, True)


def test_a_bundle_never_takes_the_place_of_other_files(made: Run, out: Path) -> None:
    out.mkdir()
    (out / "thesis.txt").write_text("precious")
    with pytest.raises(UsageError, match="holds files already"):
        sign_off(made.path, out, UNSIGNED)
    assert [path.name for path in out.iterdir()] == ["thesis.txt"]


def test_a_bundle_is_not_written_into_the_run(made: Run) -> None:
    with pytest.raises(UsageError, match="lies within"):
        sign_off(made.path, made.path / "bundle", UNSIGNED)


@pytest.mark.parametrize("name", ["signoff", "canary"])
def test_shipped_suites_of_releases_say_so(name: str) -> None:
    assert load_suite(name).signoff


def test_other_suites_do_not_say_so() -> None:
    assert not any(load_suite(name).signoff for name in ("nightly", "smoke"))


def test_a_margin_that_was_typed_makes_another_suite_of_it() -> None:
    suite: Suite = load_suite("signoff", margin=0.5)
    assert not suite.signoff


def test_the_flag_changes_no_score() -> None:
    assert load_suite("signoff").digest == load_suite("signoff", margin=0.5).digest
