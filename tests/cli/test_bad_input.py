"""Each kind of bad input ends with one clear line, its exit code, and nothing written."""

import errno
import fcntl
import json
import os
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from harness import shipped
from harness.calibrate import store
from tests.cli.conftest import Cli
from tests.typed import Done

E2E = ("e2e", "--qformat", "nvfp4", "--suite", "canary", "--engine", "reference")


def copy_of_canary(folder: Path) -> Path:
    return Path(shutil.copytree(shipped.canary() / "model", folder / "model"))


def only_line(done: Done) -> str:
    """Return the one line that the ending printed; progress comes before it."""
    lines = [line for line in done.err.splitlines() if line.startswith("harness: ")]
    assert len(lines) == 1, done.err
    assert "Traceback" not in done.err
    return lines[0]


def refused(cli: Cli, folder: Path, *arguments: object) -> str:
    """Run in an empty folder; return the line, having checked exit 2 and that nothing is left."""
    empty = folder / "empty"
    empty.mkdir()
    done = cli(*arguments, cwd=empty)
    assert done.code == 2, done.err
    assert list(empty.iterdir()) == []
    return only_line(done)


def test_an_unknown_model(cli: Cli, tmp_path: Path) -> None:
    assert "'no/such-model'" in refused(cli, tmp_path, *E2E, "--model", "no/such-model")


def test_an_unknown_format(cli: Cli, tmp_path: Path) -> None:
    line = refused(cli, tmp_path, "e2e", "--model", "canary", "--qformat", "nvfp5")
    assert "unknown format 'nvfp5'. Did you mean 'nvfp4'" in line


def test_a_dense_model_with_an_experts_only_recipe(
    cli: Cli, tmp_path: Path, tiny_qwen3: Path
) -> None:
    arguments = ["e2e", "--model", tiny_qwen3, "--qformat", "nvfp4_experts_only", *E2E[-2:]]
    line = refused(cli, tmp_path, *arguments, "--suite", "canary", "--calib-data", "canary")
    assert "*.experts.*weight_quantizer" in line
    assert "no routed experts" in line


def test_a_folder_that_is_no_checkpoint(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    line = refused(cli, tmp_path, *E2E, "--model", tmp_path / "folder")
    assert str(tmp_path / "folder") in line


def test_a_truncated_safetensors_file(cli: Cli, tmp_path: Path) -> None:
    model = copy_of_canary(tmp_path)
    shard = next(model.glob("*.safetensors"))
    with shard.open("r+b") as file:
        file.truncate(shard.stat().st_size - 1000)
    assert shard.name in refused(cli, tmp_path, *E2E, "--model", model)


@pytest.mark.parametrize("command", [E2E, ("quantize", "--qformat", "nvfp4")])
def test_a_token_beyond_the_embedding_is_named_before_anything_runs(
    cli: Cli, tmp_path: Path, command: tuple[str, ...]
) -> None:
    model = copy_of_canary(tmp_path)
    settings = json.loads((model / "generation_config.json").read_text())
    (model / "generation_config.json").write_text(json.dumps({**settings, "eos_token_id": 9999}))
    arguments = ["--model", model, "--calib-data", "canary", "--plan"]
    out = [] if command is E2E else ["--out", tmp_path / "out"]
    line = refused(cli, tmp_path, *command, *arguments, *out)
    assert "eos_token_id in generation_config.json has the token id 9999" in line


def test_a_file_beside_the_weights_is_named_and_not_read(cli: Cli, tmp_path: Path) -> None:
    model = copy_of_canary(tmp_path)
    save_file({"lora_A": torch.ones(2, 2)}, model / "adapter_model.safetensors")
    done = cli(*E2E, "--model", model, "--calib-data", "canary", "--plan")
    assert done.code == 0, done.err
    assert "adapter_model.safetensors" in done.err


def test_a_nan_in_a_weight_fails_the_stage_and_leaves_no_checkpoint(
    cli: Cli, tmp_path: Path
) -> None:
    model = copy_of_canary(tmp_path)
    shard = next(model.glob("*.safetensors"))
    tensors = load_file(shard)
    name = next(n for n in tensors if n.endswith("experts.down_proj") and "mtp" not in n)
    tensors[name][1, 2, 3] = torch.nan
    save_file(tensors, shard, metadata={"format": "pt"})
    run_dir = tmp_path / "run"
    done = cli(*E2E, "--model", model, "--calib-data", "canary", "--run-dir", run_dir, "--json")
    assert done.code == 3, done.err
    assert done.json["reason_codes"] == ["non-finite-weight"]
    assert name in done.json["failure"]["message"]
    assert not (run_dir / "checkpoint").exists()
    assert (run_dir / "report.html").is_file()


def test_a_width_that_is_no_multiple_of_16(cli: Cli, tmp_path: Path, narrow_qwen3: Path) -> None:
    arguments = ["--model", narrow_qwen3, "--calib-data", "canary"]
    assert "no multiple of the 16" in refused(cli, tmp_path, *E2E, *arguments)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "empty"),
        ("not json\n", ":1:"),
        ('{"text": "fine"}\n{"prose": 1}\n', ":2:"),
        ('{"input_ids": [1, "two"]}\n', ":1:"),
    ],
)
def test_a_bad_calibration_file(cli: Cli, tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "calibration.jsonl"
    file.write_text(text)
    arguments = ["--model", "canary", "--calib-data", file]
    line = refused(cli, tmp_path, *E2E, *arguments)
    assert str(file) in line
    assert words in line


def test_a_run_directory_in_use(cli: Cli, quick: tuple[str, ...], tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    with (run_dir / "run.lock").open("a+") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        done = cli(*quick, "--qformat", "nvfp4", "--run-dir", run_dir)
    assert done.code == 2
    assert "in use by process" in only_line(done)
    assert [p.name for p in run_dir.iterdir()] == ["run.lock"]


@pytest.mark.usefixtures("lm_eval_index")
def test_a_task_that_does_not_exist(cli: Cli, quick_suite: Path, tmp_path: Path) -> None:
    values = yaml.safe_load(quick_suite.read_text())
    wrong = values["tasks"][0]["name"] + "x"
    values["tasks"][0]["name"] = wrong
    suite = tmp_path / "wrong.yaml"
    suite.write_text(yaml.safe_dump(values))
    arguments = ["e2e", "--model", "canary", "--qformat", "nvfp4", "--suite", suite]
    assert f"'{wrong}'" in refused(cli, tmp_path, *arguments)


def test_a_margin_that_cannot_be_met(cli: Cli, tmp_path: Path) -> None:
    line = refused(cli, tmp_path, *E2E, "--model", "canary", "--margin", "0.0001")
    assert "0.0001 cannot be met" in line


def test_every_problem_is_listed_at_once(cli: Cli, tmp_path: Path) -> None:
    arguments = ["--model", "no/such-model", "--calib-data", "/no/such/file.jsonl"]
    done = cli(*E2E, *arguments, "--margin", "0.0001", cwd=tmp_path)
    assert done.code == 2
    for words in ("3 problems", "no/such-model", "/no/such/file.jsonl", "0.0001"):
        assert words in done.err


def test_a_bad_option_is_a_usage_error(cli: Cli) -> None:
    assert cli("e2e", "--model", "canary", "--no-such-option").code == 2


def test_an_error_as_json_has_its_reason_code(cli: Cli) -> None:
    done = cli("e2e", "--model", "canary", "--qformat", "nvfp5", "--json")
    assert done.code == 2
    assert done.json["reason_codes"] == ["bad-recipe"]
    assert done.json["retryable"] is False


def test_a_full_disk_is_named_and_nothing_half_written_is_left(
    cli: Cli, quick: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Writing the ranges that calibration found fails as it does on a full disk."""

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(store, "save_file", full)
    run_dir = tmp_path / "run"
    done = cli(*quick, "--qformat", "nvfp4", "--run-dir", run_dir, "--json")
    assert done.code == 3, done.err
    assert done.json["reason_codes"] == ["disk-full"]
    assert done.json["failure"]["retryable"] is True
    assert not (run_dir / "checkpoint").exists()
    assert (run_dir / "report.html").is_file()
