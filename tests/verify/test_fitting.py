"""The streamed comparison beside the definition: codes times steps, written out plainly."""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from harness.engines import COMPRESSED, MODELOPT
from harness.verify import fitting, verify
from harness.verify.dequantize import Rows, find_weight, read_rows
from harness.verify.fitting import Fitting, fit_of
from harness.verify.layouts import LAYOUTS
from harness.verify.shards import read_shard
from harness.verify.stored import Buffers, StoredTensors

OUT, WIDTH = 200, 320
E2M1 = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0])
SEED = torch.Generator().manual_seed(0)


class Case(NamedTuple):
    """A weight as it is stored, and its values."""

    library: str
    algo: str
    stored: dict[str, Tensor]
    values: Tensor


def bytes_of(*shape: int) -> Tensor:
    return torch.randint(0, 0x7F, shape, dtype=torch.uint8, generator=SEED)


def four_bits(*, library: str = MODELOPT, algo: str = "NVFP4", block: int = 16) -> Case:
    codes = torch.randint(0, 256, (OUT, WIDTH // 2), dtype=torch.uint8, generator=SEED)
    scale, one = bytes_of(OUT, WIDTH // block), torch.tensor(0.37)
    nibbles = torch.stack([codes & 15, codes >> 4], -1).reshape(OUT, WIDTH).int()
    values = E2M1[nibbles & 7] * (1 - 2 * (nibbles >> 3))
    if algo == "MXFP4":
        steps, stored = torch.exp2(scale.float() - 127), {"weight_scale": scale}
    else:
        fp8 = scale.view(torch.float8_e4m3fn)
        two = {"weight_global_scale": 1 / one} if library == COMPRESSED else {"weight_scale_2": one}
        steps, stored = fp8.float() * one, {"weight_scale": fp8, **two}
    weight = "weight_packed" if library == COMPRESSED else "weight"
    values *= steps.repeat_interleave(block, 1)
    return Case(library, algo, {weight: codes, **stored}, values)


def eight_bits(algo: str) -> Case:
    codes = bytes_of(OUT, WIDTH).view(torch.float8_e4m3fn)
    if algo == "MXFP8":
        scale = bytes_of(OUT, WIDTH // 32)
        steps = torch.exp2(scale.float() - 127).repeat_interleave(32, 1)
    else:
        shape = {"FP8": (), "FP8_PER_CHANNEL_PER_TOKEN": (OUT,), "FP8_PB_WO": (2, 1, 3, 1)}[algo]
        scale = torch.rand(shape, generator=SEED) + 0.5
        steps = scale
        if algo == "FP8_PER_CHANNEL_PER_TOKEN":
            steps = scale[:, None]
        elif algo == "FP8_PB_WO":
            tiles = scale.reshape(2, 3).repeat_interleave(128, 0).repeat_interleave(128, 1)
            steps = tiles[:OUT, :WIDTH]
    return Case(MODELOPT, algo, {"weight": codes, "weight_scale": scale}, codes.float() * steps)


CASES = {
    "nvfp4": four_bits(),
    "nvfp4 of llmcompressor": four_bits(library=COMPRESSED),
    "w4a8": four_bits(algo="W4A8_NVFP4_FP8", block=32),
    "mxfp4": four_bits(algo="MXFP4", block=32),
    "fp8": eight_bits("FP8"),
    "fp8 by rows": eight_bits("FP8_PER_CHANNEL_PER_TOKEN"),
    "fp8 by tiles": eight_bits("FP8_PB_WO"),
    "mxfp8": eight_bits("MXFP8"),
}


def open_tensors(path: Path, tensors: dict[str, Tensor]) -> StoredTensors:
    save_file({f"m.{leaf}": t.contiguous() for leaf, t in tensors.items()}, path)
    return StoredTensors(path.parent, (read_shard(path),))


@pytest.mark.parametrize("num_rows", [1, 3, 100, OUT])
@pytest.mark.parametrize("case", CASES)
def test_rows_are_codes_times_steps(tmp_path: Path, case: str, num_rows: int) -> None:
    library, algo, stored, values = CASES[case]
    layout = LAYOUTS[library][algo]
    with open_tensors(tmp_path / "x.safetensors", stored) as files:
        weight = find_weight("m", layout, files)
        assert weight is not None
        assert weight.shape == (OUT, WIDTH)
        rows = Rows(weight, files, Buffers())
        for first in range(0, OUT, num_rows):
            last = min(first + num_rows, OUT)
            codes = files.read(weight.codes, (first, last))
            found, room = np.empty(((2, (last - first) * WIDTH)), np.float32)
            rows.fill(found, codes, (first, last), room)
            np.testing.assert_allclose(found, values[first:last].numpy().ravel(), rtol=1e-6)
        sample = read_rows(weight, files, num_rows).values()
        np.testing.assert_allclose(sample, values[:num_rows].numpy(), rtol=1e-6)


@pytest.mark.parametrize("items", [1, 7 * WIDTH, 1 << 18])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_a_fit_is_that_of_its_definition(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, items: int
) -> None:
    monkeypatch.setattr(fitting, "_PIECE_ITEMS", items)
    library, algo, stored, values = CASES["nvfp4"]
    values = values / values.abs().max()
    stored = {**stored, "weight_scale_2": stored["weight_scale_2"] / CASES["nvfp4"].values.max()}
    original = (values * 0.9 + 0.01 * torch.randn(OUT, WIDTH, generator=SEED)).to(dtype)
    (tmp_path / "source").mkdir()
    source = open_tensors(tmp_path / "source" / "y.safetensors", {"weight": original})
    with open_tensors(tmp_path / "x.safetensors", stored) as files, source:
        weight = find_weight("m", LAYOUTS[library][algo], files)
        assert weight is not None
        fit = Fitting(weight, files, source.whole("m.weight"), source)
        codes, buffers = files.read(weight.codes), Buffers()
        for first in range(0, codes.size, fit.piece_bytes):
            fit.add(codes[first : first + fit.piece_bytes], buffers)
        wanted, meant = original.double(), values.double()
        error = ((meant - wanted).norm() / wanted.norm()).item()
        gain = ((meant * wanted).sum() / wanted.square().sum()).item()
        assert fit.fit() == pytest.approx((error, gain), rel=1e-5)
        whole = fit_of(read_rows(weight, files, OUT), source.floats(source.whole("m.weight")))
        assert whole == pytest.approx((error, gain), rel=1e-5)


MISSHAPEN: dict[str, dict[str, Tensor]] = {
    "a weight that is not quantized": {"weight": torch.ones(64, 32).bfloat16()},
    "a weight of three dimensions": {"weight": torch.ones(2, 64, 16, dtype=torch.uint8)},
    "a weight of one dimension": {"weight": torch.ones(64, dtype=torch.uint8)},
    "a width without blocks": {
        "weight": torch.ones(64, 25, dtype=torch.uint8),
        "weight_scale": torch.ones(64, 3).to(torch.float8_e4m3fn),
    },
    "a width below a block": {
        "weight": torch.ones(64, 4, dtype=torch.uint8),
        "weight_scale": torch.ones(64, 0).to(torch.float8_e4m3fn),
    },
}


@pytest.mark.parametrize("fault", MISSHAPEN)
def test_what_cannot_be_compared_is_left_to_the_checks_of_shapes(
    tmp_path: Path, fault: str
) -> None:
    source, folder = tmp_path / "source", tmp_path / "checkpoint"
    good = {
        "weight": torch.ones(64, 16, dtype=torch.uint8),
        "weight_scale": torch.ones(64, 2).to(torch.float8_e4m3fn),
        "weight_scale_2": torch.tensor(0.1),
        "input_scale": torch.tensor(0.1),
    }
    stored = {**good, **MISSHAPEN[fault]}
    for path, tensors in ((source, {"weight": torch.ones(64, 32)}), (folder, stored)):
        path.mkdir()
        section = {"quant_algo": "NVFP4", "quant_method": "modelopt", "ignore": []}
        config = {} if path is source else {"quantization_config": section}
        (path / "config.json").write_text(json.dumps(config))
        named = {f"model.layers.0.mlp.down_proj.{leaf}": t for leaf, t in tensors.items()}
        save_file(named, path / "model.safetensors")
    failed = {check.id for check in verify(folder, source=source).checks if not check.passed}
    assert "layer-tensors-well-formed" in failed
    assert "weights-near-source" not in failed
