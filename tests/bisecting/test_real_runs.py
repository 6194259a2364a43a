"""What was planted is found by real runs of the canary: a commit of a recipe, a version of vLLM.

Both bisects are typed as a user types them, over verdicts. The versions are environments of the one
vLLM that is here; from the planted one on they hold a plugin that computes all experts of a layer
with the scale of the first.
"""

import subprocess
from pathlib import Path

import pytest
import yaml

from harness import drill, shipped
from harness.serve import find_vllm
from tests.bisecting.test_questions import GIT, git
from tests.small_suite import write_small_suite
from tests.tiers import slow
from tests.typed import Done, typed

pytestmark = pytest.mark.skipif(not GIT, reason="git is not here")
ROOT = Path(__file__).resolve().parents[2]
PLANTED = "calibrate faster"
VERSIONS = ("v1", "v2", "v3", "v4")
FIRST_BAD = "v3"


@pytest.fixture(scope="session")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_suite(tmp_path_factory.mktemp("suite"), tasks=4, items=100, margin=0.1)


def typed_here(folder: Path, *words: object) -> Done:
    here = {"HARNESS_BASELINES": str(folder / "baselines"), "PYTHONPATH": str(ROOT)}
    return typed(*words, env=here)


@pytest.fixture(scope="session")
@slow("five runs of the canary")
def recipes_bisected(suite: Path, tmp_path_factory: pytest.TempPathFactory) -> Done:
    """A bisect over six commits of a team's recipe, of which the fourth breaks it."""
    folder = tmp_path_factory.mktemp("recipes")
    repository = folder / "repository"
    repository.mkdir()
    git(repository, "init", "-q", "-b", "main")
    recipe = yaml.safe_load((shipped.recipes() / "nvfp4.yaml").read_text(encoding="utf-8"))
    recipe["calibration"]["size"] = 64
    changes: dict[str, dict[str, object]] = {
        "first": {"name": "bird"},
        "say what it is": {"description": "NVFP4 for the bird."},
        "smaller batches": {"calibration": recipe["calibration"] | {"batch_tokens": 4096}},
        PLANTED: {"calibration": recipe["calibration"] | {"size": 1, "seq": 2}},
        "say more": {"description": "NVFP4 for the bird, calibrated in no time."},
        "leave the head alone": {"exclude": [*recipe["exclude"], "*lm_head.weight*"]},
    }
    for subject, change in changes.items():
        recipe |= change
        (repository / "bird.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
        git(repository, "add", ".")
        git(repository, "commit", "-q", "-m", subject)
    words = ["bisect", "--repo", repository, "--good", "main~5", "--bad", "main", "--repeats", "1"]
    words += ["--path", "bird.yaml", "--out", folder / "b", "--json", "--", "e2e"]
    run = ["--model", "canary", "--recipe", "{tree}/bird.yaml", "--engine", "reference"]
    return typed_here(folder, *words, *run, "--suite", suite)


def test_the_commit_that_broke_a_recipe_is_found(recipes_bisected: Done) -> None:
    found = recipes_bisected.json
    assert recipes_bisected.code == 0, recipes_bisected.err
    assert [suspect.partition(" ")[2] for suspect in found["suspects"]] == [PLANTED]
    assert "bird.yaml" in found["changed"]


def test_what_it_changed_is_the_only_cause(recipes_bisected: Done) -> None:
    (cause,) = recipes_bisected.json["difference"]["causes"]
    assert cause["part"] == "calibration"
    assert [(one["what"], one["a"], one["b"]) for one in cause["differences"]] == [
        ("settings.size", "64", "1"),
        ("settings.seq", "512", "2"),
    ]


@pytest.fixture(scope="session")
@slow("serves the canary with a real vLLM four times")
def engines_bisected(suite: Path, tmp_path_factory: pytest.TempPathFactory) -> Done:
    """A bisect over four versions of vLLM, of which the third breaks FP8 experts."""
    found = find_vllm(None)
    if found is None:
        pytest.skip("needs a vLLM (scripts/setup-vllm)")
    folder = tmp_path_factory.mktemp("engines")
    faulty = VERSIONS[VERSIONS.index(FIRST_BAD) :]
    engines = [f"{v}={environment(folder / v, found, faulty=v in faulty)}" for v in VERSIONS]
    checkpoint = folder / "made"
    made = ["quantize", "--model", "canary", "--qformat", "fp8", "--calib-size", "64"]
    assert typed_here(folder, *made, "--out", checkpoint).code == 0
    words = ["bisect", "--engines", ",".join(engines), "--repeats", "1", "--out", folder / "b"]
    gate = ["gate", checkpoint / "checkpoint", "--baseline", "canary", "--suite", suite]
    return typed_here(folder, *words, "--json", "--", *gate)


def environment(folder: Path, vllm: Path, *, faulty: bool) -> Path:
    """Make an environment that holds the vLLM that is here, and maybe the fault."""
    (theirs,) = vllm.parent.parent.glob("lib/python*/site-packages")
    subprocess.run([vllm, "-m", "venv", "--without-pip", folder], check=True)
    (ours,) = folder.glob("lib/python*/site-packages")
    fault = Path(drill.__file__).with_name("in_vllm")
    places = [theirs, *([fault] if faulty else [])]
    (ours / "engine.pth").write_text("".join(f"{place}\n" for place in places))
    return folder


def test_the_version_of_vllm_that_broke_it_is_found(engines_bisected: Done) -> None:
    assert engines_bisected.code == 0, engines_bisected.err
    (suspect,) = engines_bisected.json["suspects"]
    assert suspect.startswith(f"{FIRST_BAD}=")


def test_no_other_version_is_run_than_halving_takes(engines_bisected: Done) -> None:
    assert len(engines_bisected.json["seen"]) == 4
