"""Each fault of files changes what it says, and nothing else."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from harness.drill import FAULTS
from harness.drill.fault import FileFault
from harness.drill.tampering import link_checkpoint, tampering

FILE_FAULTS = [fault for fault in FAULTS if isinstance(fault, FileFault)]
CONFIGS = frozenset({"config.json", "hf_quant_config.json"})
HALVES = frozenset(
    {
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "model.safetensors.index.json",
    }
)
LAYERS = "model.language_model.layers."
EXPERT_PROJECTIONS = 4 * 16 * 3


class Touched(NamedTuple):
    """What differs between a correct checkpoint and a spoiled one."""

    tensors: int = 0
    """Changed, gone or new."""
    part: str = ""
    """Of the name of each of them."""
    files: frozenset[str] = frozenset()
    """Besides the manifest and the one file of weights."""


EXPECTED: Mapping[str, Touched] = {
    "expert-input-scales-deleted": Touched(EXPERT_PROJECTIONS, ".input_scale"),
    "input-scales-of-a-layer-deleted": Touched(48, LAYERS + "2.mlp.experts."),
    "input-scale-of-an-expert-deleted": Touched(1, "1.mlp.experts.5.down_proj.input_scale"),
    "expert-input-scales-zero": Touched(EXPERT_PROJECTIONS, ".input_scale"),
    "expert-input-scales-nan": Touched(EXPERT_PROJECTIONS, ".input_scale"),
    "expert-input-scales-denormal": Touched(EXPERT_PROJECTIONS, ".input_scale"),
    "expert-input-scales-tiny": Touched(EXPERT_PROJECTIONS, ".input_scale"),
    "gate-up-scales-differ": Touched(64, ".gate_proj.weight_scale_2"),
    "fused-scales-differ": Touched(3, ".in_proj_z.weight_scale_2"),
    # Two projections have the very scale of expert 0's.
    "one-expert-scale-for-all": Touched(4 * 15 * 3 - 2, ".weight_scale"),
    "block-scales-transposed": Touched(EXPERT_PROJECTIONS, ".weight_scale"),
    "block-scales-reversed": Touched(EXPERT_PROJECTIONS, ".weight_scale"),
    "block-scale-nan": Touched(1, "0.mlp.experts.3.gate_proj.weight_scale"),
    "block-scales-zero": Touched(3, "0.mlp.experts.3."),
    "kv-scales-lost": Touched(2, ".self_attn."),
    "value-scales-lost": Touched(1, ".v_proj.v_scale"),
    "kv-scales-too-small": Touched(2, ".self_attn."),
    "nibbles-swapped": Touched(EXPERT_PROJECTIONS, "_proj.weight"),
    "experts-exchanged": Touched(2 * 3 * 2 + 2 * 3, "1.mlp.experts."),
    "layer-zeroed": Touched(48, "1.mlp.experts."),
    "experts-left-bf16": Touched(4 * EXPERT_PROJECTIONS, ".mlp.experts."),
    "expert-missing": Touched(12, "3.mlp.experts.7."),
    "expert-too-many": Touched(12, "0.mlp.experts.16."),
    "routers-quantized": Touched(16, ".mlp.gate.", CONFIGS),
    "vision-quantized": Touched(8, "visual.blocks.0.mlp.", CONFIGS),
    "draft-head-lost-in-part": Touched(2, "mtp.layers.0.mlp.experts."),
    "prefix-doubled": Touched(-1, "model.language_model."),
    "norms-shifted": Touched(8, "_layernorm.weight"),
    "router-nan": Touched(1, "2.mlp.gate.weight"),
    "algorithm-not-that-of-the-tensors": Touched(files=CONFIGS),
    "weight-only-declared-with-inputs": Touched(files=CONFIGS),
    "configurations-contradict": Touched(files=frozenset({"hf_quant_config.json"})),
    "algorithm-null": Touched(files=CONFIGS),
    "quantization-not-declared": Touched(files=CONFIGS),
    "lm-head-not-ignored": Touched(files=CONFIGS),
    "attention-not-ignored": Touched(files=CONFIGS),
    "ignore-pattern-too-wide": Touched(files=CONFIGS),
    "fused-layer-not-ignored": Touched(files=CONFIGS),
    "shard-missing": Touched(-1, "", HALVES - {"model-00002-of-00002.safetensors"}),
    "shard-truncated": Touched(-1, "", HALVES),
    "index-names-absent-scales": Touched(48, "0.mlp.experts.", HALVES),
    "index-wrong": Touched(files=HALVES),
    "chat-template-of-another-model": Touched(files=frozenset({"chat_template.jinja"})),
    "tokenizer-of-another-model": Touched(files=frozenset({"tokenizer.json"})),
    "tokenizer-lost": Touched(files=frozenset({"tokenizer.json", "tokenizer_config.json"})),
}
"""By fault; -1 for more than can be counted by hand."""


def hashes(folder: Path) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.iterdir()
        if path.is_file()
    }


def tensors(folder: Path) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for path in folder.glob("*.safetensors"):
        try:
            found |= load_file(path)
        except SafetensorError:
            continue  # cut off on purpose
    return found


def is_same(one: Tensor | None, other: Tensor | None) -> bool:
    if one is None or other is None or (one.dtype, one.shape) != (other.dtype, other.shape):
        return False
    return torch.equal(one.reshape(-1).view(torch.uint8), other.reshape(-1).view(torch.uint8))


def test_the_table_of_changes_has_every_file_fault() -> None:
    assert {fault.name for fault in FILE_FAULTS} == set(EXPECTED)


@pytest.mark.parametrize("fault", FILE_FAULTS, ids=lambda fault: fault.name)
def test_a_file_fault_changes_what_it_says_and_nothing_else(
    fault: FileFault, correct: Mapping[str, Path], tmp_path: Path
) -> None:
    good, spoiled = correct[fault.format], tmp_path / "spoiled"
    expected = EXPECTED[fault.name]
    before = hashes(good)
    link_checkpoint(good, spoiled)
    with tampering(spoiled) as files:
        fault.spoil(files)
    assert hashes(good) == before, "the correct checkpoint was written to"
    after = hashes(spoiled)
    ours = {"harness.json", "model.safetensors"}
    touched = {n for n in before.keys() | after.keys() if before.get(n) != after.get(n)}
    assert touched - ours == expected.files
    old, new = tensors(good), tensors(spoiled)
    changed = [n for n in old.keys() | new.keys() if not is_same(old.get(n), new.get(n))]
    assert [name for name in changed if expected.part not in name] == []
    assert len(changed) == expected.tensors or (expected.tensors == -1 and changed)
    assert changed or touched - ours


@pytest.mark.parametrize("fault", FILE_FAULTS[:3], ids=lambda fault: fault.name)
def test_the_manifest_of_a_spoiled_checkpoint_says_nothing_of_the_fault(
    fault: FileFault, correct: Mapping[str, Path], tmp_path: Path
) -> None:
    link_checkpoint(correct[fault.format], tmp_path / "spoiled")
    with tampering(tmp_path / "spoiled") as files:
        fault.spoil(files)
    manifest = json.loads((tmp_path / "spoiled" / "harness.json").read_bytes())["sha256"]
    after = hashes(tmp_path / "spoiled")
    del after["harness.json"]
    assert manifest == after


def test_a_fault_that_matches_no_tensor_is_an_error(
    correct: Mapping[str, Path], tmp_path: Path
) -> None:
    link_checkpoint(correct["nvfp4"], tmp_path / "spoiled")
    with (
        pytest.raises(LookupError, match="no tensor is called 'nothing'"),
        tampering(tmp_path / "spoiled") as files,
    ):
        files.drop("nothing")
