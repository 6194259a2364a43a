"""A bundle is checked with the checkpoint alone; one byte that differs fails it, by name."""

import json
import shutil
from pathlib import Path

import pytest

from harness.artifacts import BundleCheck, SignOff, load, save
from harness.errors import HarnessError, UsageError
from harness.models import sha256_of
from harness.signoff import Proof, Signer, check_bundle, sign_off
from tests.signoff.conftest import Run
from tests.typed import typed

ANYBODY = Proof()


@pytest.fixture(scope="module")
def released(made: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle and the checkpoint, far from the run."""
    folder = tmp_path_factory.mktemp("released")
    assert isinstance(sign_off(made.path, folder / "bundle", Signer()), SignOff)
    shutil.copytree(made.checkpoint, folder / "model")
    return folder


@pytest.fixture
def folder(released: Path, tmp_path: Path) -> Path:
    """A copy of both, to be changed."""
    shutil.copytree(released, tmp_path / "copy")
    return tmp_path / "copy"


def check(folder: Path, proof: Proof = ANYBODY) -> BundleCheck:
    return check_bundle(folder / "bundle", folder / "model", proof)


def files_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_what_was_signed_off_passes(released: Path) -> None:
    found = check(released)
    assert (found.faults, found.signature, found.is_proven) == ((), "unsigned", False)


def test_a_changed_byte_in_any_file_fails_and_names_it(folder: Path) -> None:
    passed = []
    for path in files_in(folder):
        content = path.read_bytes()
        for at in {0, len(content) // 2, len(content) - 1}:
            path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
            try:
                faults = check(folder).faults
            except HarnessError as error:
                faults = (str(error),)
            if not any(f"'{path}'" in fault for fault in faults):
                passed.append((path, at, faults))
        path.write_bytes(content)
    assert passed == []


def test_a_space_more_in_bundle_json_fails(folder: Path) -> None:
    path = folder / "bundle" / "bundle.json"
    path.write_text(path.read_text() + " ")
    assert check(folder).faults == (f"'{path}' is not spelled as it was written",)


def test_a_missing_file_fails_by_name(folder: Path) -> None:
    for path in files_in(folder):
        content = path.read_bytes()
        path.unlink()
        if path.name == "bundle.json":
            with pytest.raises(UsageError, match=r"bundle\.json"):
                check(folder)
        elif path.name != "harness.json":  # may be left out, no engine reads it
            assert any(f"'{path}' is missing" in fault for fault in check(folder).faults)
        path.write_bytes(content)


@pytest.mark.parametrize(
    "name",
    ["model/extra.bin", "model/sub/.x", "bundle/extra", "bundle/.git/x", "bundle/evidence/x"],
)
def test_an_extra_file_fails_by_name(folder: Path, name: str) -> None:
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text("x")
    assert check(folder).faults == (f"'{folder / name}' was not signed off",)


def test_a_link_in_the_place_of_evidence_fails(folder: Path, tmp_path: Path) -> None:
    path = folder / "bundle" / "verdict.json"
    shutil.move(path, tmp_path / "elsewhere.json")
    path.symlink_to(tmp_path / "elsewhere.json")
    assert any(f"'{path}'" in fault for fault in check(folder).faults)


def test_what_git_and_the_hub_leave_in_a_download_is_no_fault(folder: Path) -> None:
    (folder / "model" / ".gitattributes").write_text("*.safetensors filter=lfs")
    (folder / "model" / ".cache" / "huggingface").mkdir(parents=True)
    (folder / "model" / ".cache" / "huggingface" / "x").write_text("x")
    assert check(folder).faults == ()


def test_the_card_and_results_may_lie_beside_the_checkpoint(folder: Path) -> None:
    shutil.copy(folder / "bundle" / "README.md", folder / "model")
    shutil.copytree(folder / "bundle" / ".eval_results", folder / "model" / ".eval_results")
    assert check(folder).faults == ()


def test_a_name_that_would_steer_a_terminal_is_spelled_out(folder: Path) -> None:
    (folder / "model" / "\x1b[2Jgone").write_text("x")
    (fault,) = check(folder).faults
    assert "\x1b" not in fault
    assert "\\x1b[2Jgone" in fault


def test_another_card_beside_the_checkpoint_fails(folder: Path) -> None:
    (folder / "model" / "README.md").write_text("the best model")
    assert any("README.md" in fault for fault in check(folder).faults)


def test_a_bundle_that_claims_more_than_its_verdict_fails(folder: Path) -> None:
    path = folder / "bundle" / "bundle.json"
    values = json.loads(path.read_text())
    claimed = {k: v for k, v in values.items() if k not in {"made_from", "record_sha256"}}
    save(SignOff(**{**claimed, "scope": ("any GPU",)}), path)
    (fault,) = check(folder).faults
    assert "says something else than" in fault


def test_a_bundle_of_another_checkpoint_fails(folder: Path) -> None:
    path = folder / "bundle" / "bundle.json"
    said = load(SignOff, path)
    (folder / "model" / "config.json").write_text("{}")
    (folder / "model" / "config.json").write_text('{"model_type": "other"}')
    values = json.loads(path.read_text())
    claimed = {k: v for k, v in values.items() if k not in {"made_from", "record_sha256"}}
    digests = {**said.checkpoint, "config.json": sha256_of(folder / "model" / "config.json")}
    save(SignOff(**{**claimed, "checkpoint": digests}), path)
    assert any("names other files" in fault for fault in check(folder).faults)


def test_the_command_ends_with_4_and_names_the_file(folder: Path) -> None:
    (folder / "model" / "config.json").write_text("{}")
    done = typed("signoff", "--check", folder / "bundle", folder / "model", "--json")
    assert done.code == 4
    assert done.json["faults"] == [
        f"'{folder / 'model' / 'config.json'}' is not the file that was signed off"
    ]
    assert done.json["reason_codes"] == ["not-signed-off"]


def test_the_command_says_that_a_bundle_is_unsigned(released: Path) -> None:
    done = typed("signoff", "--check", released / "bundle", released / "model")
    assert done.code == 0
    assert "the bundle is unsigned" in done.out


def test_what_is_no_bundle_ends_with_2(released: Path) -> None:
    done = typed("signoff", "--check", released / "model", released / "model")
    assert done.code == 2
    assert "bundle.json" in done.line()


def test_a_run_that_is_refused_lists_every_reason(run: Run, tmp_path: Path) -> None:
    (run.checkpoint / "extra.bin").write_text("x")
    done = typed("signoff", run.path, "--out", tmp_path / "bundle")
    assert done.code == 2
    assert done.out.startswith(f"not signed off: {run.path}\n- ")
