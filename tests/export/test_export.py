"""The whole checkpoint on the disk: complete and true, or not there."""

import errno
import hashlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from harness.artifacts import (
    CalibrationStats,
    Checkpoint,
    QuantizedTensor,
    QuantPlan,
    digest_of,
)
from harness.errors import DiskFullError, ReasonCode, RunDirectoryError, StageError
from harness.export import bits_per_weight, export, required_bytes
from harness.models import Source
from harness.quantize import quantize
from tests.stored import read_tensors, same_bytes
from tests.tiers import slow

Make = Callable[..., "Made"]
SCRIPT = Path(__file__).with_name("killed_export.py")


class Made(Protocol):
    """What the fixture `planned` gives."""

    source: Source
    plan: QuantPlan
    stats: CalibrationStats


def stream_of(made: Made) -> Iterator[QuantizedTensor]:
    return quantize(made.source, made.plan, made.stats)


def write(made: Made, into: Path, **options: int) -> Checkpoint:
    return export(made.source, made.plan, stream_of(made), into=into, **options)


def test_the_files_hold_exactly_what_was_streamed(
    planned: Make, tiny_qwen3_5_moe: Path, tmp_path: Path
) -> None:
    made = planned(tiny_qwen3_5_moe, "nvfp4", "fp8")
    checkpoint = write(made, tmp_path / "out")
    meant = {name: t for q in stream_of(made) for name, t in q.tensors.items()}
    got = read_tensors(tmp_path / "out")
    assert set(got) == set(meant)
    assert all(same_bytes(got[name], tensor) for name, tensor in meant.items())
    assert checkpoint.num_tensors == len(meant)
    assert checkpoint.num_quantized == len(made.plan.quantized)


def test_one_shard_has_the_plain_name_and_no_index(
    planned: Make, tiny_qwen3: Path, tmp_path: Path
) -> None:
    write(planned(tiny_qwen3), tmp_path / "out")
    assert (tmp_path / "out" / "model.safetensors").is_file()
    assert not (tmp_path / "out" / "model.safetensors.index.json").exists()


def test_the_index_says_which_shard_holds_each_tensor(
    planned: Make, tiny_mixtral: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    write(planned(tiny_mixtral), out, max_shard_bytes=50_000)
    index = json.loads((out / "model.safetensors.index.json").read_text(encoding="utf-8"))
    shards = sorted(out.glob("*.safetensors"))
    num_shards = len(shards)
    assert num_shards > 2
    assert shards[0].name == f"model-00001-of-{num_shards:05d}.safetensors"
    found: dict[str, str] = {}
    for shard in shards:
        with safe_open(shard, framework="pt") as file:
            found |= dict.fromkeys(file.keys(), shard.name)
    assert index["weight_map"] == found
    assert index["metadata"]["total_size"] == sum(t.nbytes for t in read_tensors(out).values())


def test_files_of_quantized_weights_hold_nothing_that_comes_late(
    planned: Make, tiny_qwen3_5_moe: Path, tmp_path: Path
) -> None:
    made, out = planned(tiny_qwen3_5_moe), tmp_path / "out"
    quantized = {planned.linear.name for planned in made.plan.quantized}

    def is_early(name: str) -> bool:
        linear, _, suffix = name.rpartition(".")
        return linear in quantized and suffix != "input_scale"

    write(made, out, max_shard_bytes=20_000)
    index = json.loads((out / "model.safetensors.index.json").read_text(encoding="utf-8"))
    early = {file for name, file in index["weight_map"].items() if is_early(name)}
    late = {file for name, file in index["weight_map"].items() if not is_early(name)}
    assert len(early & late) <= 1
    assert len(early) > 1
    assert max(early) <= min(late)


def test_sidecars_are_copied_byte_for_byte_and_weights_are_not(
    planned: Make, tiny_qwen3: Path, tmp_path: Path
) -> None:
    model = tmp_path / "model"
    model.mkdir()
    for path in tiny_qwen3.iterdir():
        (model / path.name).symlink_to(path)  # as in the Hub's cache
    extra = {
        "chat_template.jinja": b"{{ messages }}\r\n",
        "preprocessor_config.json": b'{"b":1,  "a":2}',
        "tokenizer.model": bytes(range(256)),
        "processing/tool.py": b"# code\n",
        "pytorch_model.bin": b"weights",
        "consolidated.pth": b"weights",
        "model.gguf": b"weights",
        ".git/HEAD": b"ref",
        ".cache/x.json": b"{}",
        "model.safetensors.index.json.bak": b"old",
    }
    for name, content in extra.items():
        (model / name).parent.mkdir(exist_ok=True)
        (model / name).write_bytes(content)
    made = planned(model)
    write(made, tmp_path / "out")
    kept = {str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*.*")}
    dropped = {"pytorch_model.bin", "consolidated.pth", "model.gguf", ".git/HEAD", ".cache/x.json"}
    assert not kept & dropped
    for name in set(extra) - dropped:
        assert (tmp_path / "out" / name).read_bytes() == extra[name]
    for name in ("generation_config.json", "tokenizer.json", "tokenizer_config.json"):
        copied = tmp_path / "out" / name
        assert copied.read_bytes() == (tiny_qwen3 / name).read_bytes()
        assert not copied.is_symlink()


@pytest.mark.parametrize(
    ("asked", "algo"),
    [
        (("nvfp4", "none"), "NVFP4"),
        (("w4a16_nvfp4", "fp8_cast"), "W4A16_NVFP4"),
        (("fp8", "fp8"), "FP8"),
    ],
)
def test_both_configurations_declare_the_scheme(
    planned: Make, tiny_qwen3: Path, tmp_path: Path, asked: tuple[str, str], algo: str
) -> None:
    made = planned(tiny_qwen3, *asked)
    kv_cache = asked[1]
    write(made, tmp_path / "out")
    legacy = json.loads((tmp_path / "out" / "hf_quant_config.json").read_bytes())["quantization"]
    config = json.loads((tmp_path / "out" / "config.json").read_bytes())
    declared = config.pop("quantization_config")
    assert config == made.source.config
    assert (declared["quant_method"], declared["quant_algo"]) == ("modelopt", algo)
    assert legacy["quant_algo"] == algo
    assert legacy.get("group_size") == (None if algo == "FP8" else 16)
    assert legacy["exclude_modules"] == declared["ignore"]
    assert "lm_head" in declared["ignore"]
    fp8 = {"dynamic": False, "num_bits": 8, "type": "float"}
    assert declared.get("kv_cache_scheme") == (None if kv_cache == "none" else fp8)
    assert legacy["kv_cache_quant_algo"] == (None if kv_cache == "none" else "FP8")
    assert declared["producer"]["name"] == "harness"


def test_the_manifest_has_the_sha256_of_every_other_file(
    planned: Make, tiny_qwen3: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    checkpoint = write(planned(tiny_qwen3), out)
    manifest = json.loads((out / "harness.json").read_bytes())
    files = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in out.iterdir()}
    del files["harness.json"]
    assert manifest["sha256"] == files == dict(checkpoint.sha256)
    assert manifest["digest"] == checkpoint.digest == digest_of(files)
    assert manifest["scheme"] == "NVFP4"


def test_exporting_twice_gives_the_same_digest(
    planned: Make, tiny_qwen3_moe: Path, tmp_path: Path
) -> None:
    made = planned(tiny_qwen3_moe)
    assert write(made, tmp_path / "a").digest == write(made, tmp_path / "b").digest


@pytest.mark.parametrize("qformat", ["nvfp4", "fp8", "w4a16_nvfp4"])
def test_the_size_is_known_before_anything_is_written(
    planned: Make, tiny_mixtral: Path, tmp_path: Path, qformat: str
) -> None:
    made = planned(tiny_mixtral, qformat)
    checkpoint = write(made, tmp_path / "out")
    on_disk = sum(path.stat().st_size for path in (tmp_path / "out").iterdir())
    assert on_disk <= required_bytes(made.source, made.plan) <= on_disk + 200_000
    names = [p.linear.name for p in made.plan.quantized]
    stored = {
        n: t
        for n, t in read_tensors(tmp_path / "out").items()
        if n.rpartition(".")[0] in set(names)
    }
    num_weights = sum(p.linear.shape[0] * p.linear.shape[1] for p in made.plan.quantized)
    exact = sum(t.nbytes for t in stored.values()) * 8 / num_weights
    assert checkpoint.bits_per_weight == bits_per_weight(made.plan) == pytest.approx(exact)


def test_a_tensor_that_never_came_leaves_nothing(
    planned: Make, tiny_qwen3: Path, tmp_path: Path
) -> None:
    made = planned(tiny_qwen3)
    cut = list(stream_of(made))[:-1]
    with pytest.raises(StageError, match="1 tensor") as caught:
        export(made.source, made.plan, iter(cut), into=tmp_path / "out")
    assert caught.value.reason is ReasonCode.READ_BACK_MISMATCH
    assert list(tmp_path.iterdir()) == []


def test_a_missing_input_scale_is_noticed_before_the_folder_gets_its_name(
    planned: Make, tiny_qwen3_moe: Path, tmp_path: Path
) -> None:
    made = planned(tiny_qwen3_moe)
    name = "model.layers.1.mlp.experts.3.down_proj.input_scale"
    without = (
        q._replace(tensors={n: t for n, t in q.tensors.items() if n != name})
        for q in stream_of(made)
    )
    with pytest.raises(StageError, match=r"experts\.3\.down_proj\.input_scale', which is missing"):
        export(made.source, made.plan, without, into=tmp_path / "out")


def test_an_older_checkpoint_stays_until_the_new_one_is_complete(
    planned: Make, tiny_qwen3: Path, tmp_path: Path
) -> None:
    made, other = planned(tiny_qwen3), planned(tiny_qwen3, "fp8")
    old = write(made, tmp_path / "out")
    with pytest.raises(StageError):
        export(other.source, other.plan, iter([]), into=tmp_path / "out")
    assert json.loads((tmp_path / "out" / "harness.json").read_bytes())["digest"] == old.digest
    new = write(other, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "harness.json").read_bytes())["digest"] == new.digest
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_folder_that_harness_did_not_write_is_never_replaced(
    planned: Make, tiny_qwen3: Path, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("years of work", encoding="utf-8")
    with pytest.raises(RunDirectoryError, match="is no checkpoint of harness"):
        write(planned(tiny_qwen3), tmp_path / "out")
    assert (tmp_path / "out" / "thesis.tex").read_text(encoding="utf-8") == "years of work"


def test_a_folder_within_the_model_is_refused(planned: Make, tiny_qwen3: Path) -> None:
    with pytest.raises(RunDirectoryError, match="lies within the model"):
        write(planned(tiny_qwen3), tiny_qwen3 / "quantized")


def test_a_stale_partial_folder_is_removed(planned: Make, tiny_qwen3: Path, tmp_path: Path) -> None:
    stale = tmp_path / "out.partial"
    stale.mkdir()
    (stale / "shard-00009.safetensors").write_bytes(b"half")
    write(planned(tiny_qwen3), tmp_path / "out")
    assert not stale.exists()
    assert not list((tmp_path / "out").glob("shard*"))


def test_a_full_disk_ends_in_one_line_and_leaves_nothing(
    planned: Make, tiny_qwen3: Path, tmp_path: Path
) -> None:
    made = planned(tiny_qwen3)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, before[1]))  # the system refuses to write on
    try:
        with pytest.raises(DiskFullError, match=r"needs \d+ bytes") as caught:
            write(made, tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert str(tmp_path / "out") in str(caught.value)
    assert caught.value.retryable
    assert list(tmp_path.iterdir()) == []


def test_no_space_at_the_final_flush_is_a_full_disk_too(
    planned: Make, tiny_qwen3: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DiskFullError):
        write(planned(tiny_qwen3), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
@slow("an export in a process of its own, which is killed half way")
def killed_export(tiny_qwen3: Path, tmp_path: Path) -> Path:
    out, marker = tmp_path / "out", tmp_path / "half-way"
    command = [sys.executable, str(SCRIPT), *map(str, (tiny_qwen3, out, marker))]
    with subprocess.Popen(command, cwd=Path(__file__).parents[2]) as process:
        while not marker.exists():
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    return out


def test_a_killed_export_leaves_nothing_under_the_final_name(
    planned: Make, tiny_qwen3: Path, tmp_path: Path, killed_export: Path
) -> None:
    out = killed_export
    assert not out.exists()
    assert list((tmp_path / "out.partial").glob("*.safetensors"))
    made = planned(tiny_qwen3)
    assert write(made, out).num_tensors == len(read_tensors(out))
    assert not (tmp_path / "out.partial").exists()


def test_a_source_of_several_types_keeps_each(
    planned: Make, tiny_qwen3: Path, tmp_path: Path
) -> None:
    model, norm = tmp_path / "model", "model.norm.weight"
    shutil.copytree(tiny_qwen3, model)
    weights = load_file(model / "model.safetensors")
    weights[norm] = weights[norm].float()
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    write(planned(model), tmp_path / "out")
    types = {tensor.dtype for tensor in read_tensors(tmp_path / "out").values()}
    assert types == {torch.uint8, torch.float8_e4m3fn, torch.float32, torch.bfloat16}
