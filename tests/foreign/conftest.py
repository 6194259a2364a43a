"""Checkpoints of the compressed-tensors layout, packed by that library from a tiny model.

Layout and configuration are those of llmcompressor 0.14 on the same family: the multi-token
prediction head unquantized in a file of its own, one ignore entry for each unquantized layer and a
regular expression for the head, global scales shared by what engines fuse, FP8 scales in the
model's own type.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

Tensors = dict[str, Tensor]
SCHEMES = ("NVFP4", "NVFP4A16", "FP8", "FP8_DYNAMIC", "FP8_BLOCK")
_NEVER = ("visual", "linear_attn", "embed", "norm", "mlp.gate.", "shared_expert_gate", "lm_head")
_FUSED = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
_INPUT_AMAX = 2.0


def is_quantized(name: str) -> bool:
    return name.endswith("_proj.weight") and not any(part in name for part in _NEVER)


def group_of(module: str) -> tuple[str, ...]:
    """Return the module and those that engines fuse it with."""
    parent, _, last = module.rpartition(".")
    members = next((group for group in _FUSED if last in group), (last,))
    return tuple(f"{parent}.{member}" for member in members)


def pack(weight: Tensor, group_amax: Tensor, scheme: Any) -> Tensors:  # noqa: ANN401 -- an untyped library
    """Return what the library stores for one layer."""
    from compressed_tensors.compressors import (  # noqa: PLC0415 -- an optional peer
        FloatQuantizationCompressor,
        NVFP4PackedCompressor,
    )
    from compressed_tensors.quantization.utils import (  # noqa: PLC0415 -- an optional peer
        calculate_qparams,
        generate_gparam,
    )

    args, inputs = scheme.weights, scheme.input_activations
    amax = torch.tensor([_INPUT_AMAX])
    if args.num_bits == 4:
        divisor = generate_gparam(-group_amax, group_amax)
        blocks = weight.float().reshape(weight.shape[0], -1, 16)
        scale, _ = calculate_qparams(blocks.amin(-1), blocks.amax(-1), args, divisor)
        state = {"weight": weight, "weight_scale": scale, "weight_global_scale": divisor}
        if inputs is not None:
            state["input_global_scale"] = generate_gparam(-amax, amax)
        return dict(NVFP4PackedCompressor.compress(state, scheme))
    scale, _ = calculate_qparams(*extremes(weight, str(args.strategy)), args)
    state = {"weight": weight, "weight_scale": scale}
    if inputs is not None and not inputs.dynamic:
        state["input_scale"] = calculate_qparams(-amax, amax, inputs)[0].bfloat16()
    return dict(FloatQuantizationCompressor.compress(state, scheme))


def extremes(weight: Tensor, strategy: str) -> tuple[Tensor, Tensor]:
    """Return smallest and largest values over what shares a scale."""
    if strategy == "tensor":
        return weight.min().reshape(1), weight.max().reshape(1)
    if strategy == "channel":
        return weight.amin(1, keepdim=True), weight.amax(1, keepdim=True)
    blocks = torch.split(weight, 128)  # of rows; no tiny layer is wider than a block
    low, high = [b.min().reshape(1) for b in blocks], [b.max().reshape(1) for b in blocks]
    return torch.stack(low), torch.stack(high)


class Compressed:
    """A checkpoint that a test can damage."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def change(self, edit: Callable[[Tensors], None]) -> Path:
        """Rewrite the quantized file after `edit`, and the index."""
        tensors = load_file(self.folder / "model.safetensors")
        edit(tensors)
        _write(self.folder, tensors)
        return self.folder

    def configure(self, edit: Callable[[dict[str, Any]], None]) -> Path:
        """Edit `quantization_config`."""
        path = self.folder / "config.json"
        config = json.loads(path.read_text(encoding="utf-8"))
        edit(config["quantization_config"])
        path.write_text(json.dumps(config), encoding="utf-8")
        return self.folder


def _write(folder: Path, tensors: Tensors) -> None:
    save_file({n: t.contiguous() for n, t in tensors.items()}, folder / "model.safetensors")
    weight_map = dict.fromkeys(tensors, "model.safetensors")
    weight_map |= dict.fromkeys(
        load_file(folder / "model_mtp.safetensors"), "model_mtp.safetensors"
    )
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")


def _make(folder: Path, preset: str, per_expert: Path, fused: Path) -> Path:
    from compressed_tensors.quantization import QuantizationConfig  # noqa: PLC0415 -- an optional peer

    shutil.copytree(per_expert, folder)
    config = QuantizationConfig(config_groups={preset: ["Linear"]})
    scheme = config.config_groups.pop(preset)
    scheme.format = config.format = (
        "nvfp4-pack-quantized" if preset.startswith("NVFP4") else "float-quantized"
    )
    config.config_groups["group_0"] = scheme
    source = load_file(folder / "model.safetensors")
    amax = {n.removesuffix(".weight"): t.abs().max().float() for n, t in source.items()}
    tensors: Tensors = {}
    for name, tensor in source.items():
        module = name.removesuffix(".weight")
        if is_quantized(name):
            group_amax = torch.stack([amax[member] for member in group_of(module)]).max()
            # Compiled functions as they are: a compiler is no part of what is tested.
            with torch.compiler.set_stance("force_eager"):
                stored = pack(tensor, group_amax.reshape(1), scheme)
            tensors |= {f"{module}.{leaf}": part for leaf, part in stored.items()}
        else:
            tensors[name] = tensor
            if tensor.ndim == 2 and "embed" not in name:
                config.ignore.append(module)
    config.ignore.append("re:^mtp.*")
    mtp = {n: t for n, t in load_file(fused / "model.safetensors").items() if n.startswith("mtp.")}
    save_file(mtp, folder / "model_mtp.safetensors")
    _write(folder, tensors)
    path = folder / "config.json"
    said = json.loads(path.read_text(encoding="utf-8"))
    said["quantization_config"] = json.loads(config.model_dump_json()) | {"version": "0.17.0"}
    path.write_text(json.dumps(said), encoding="utf-8")
    (folder / "recipe.yaml").write_text("default_stage: {}\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def packed_by_library(
    tiny_qwen3_5_moe_per_expert: Path,
    tiny_qwen3_5_moe: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Path]:
    """One good checkpoint a scheme; never to be changed."""
    pytest.importorskip("compressed_tensors", reason="extra `parity`")
    root = tmp_path_factory.mktemp("foreign")
    return {
        preset: _make(root / preset, preset, tiny_qwen3_5_moe_per_expert, tiny_qwen3_5_moe)
        for preset in SCHEMES
    }


@pytest.fixture
def compressed(packed_by_library: dict[str, Path], tmp_path: Path) -> Callable[..., Compressed]:
    """A copy that may be damaged."""

    def make(scheme: str = "NVFP4") -> Compressed:
        folder = tmp_path / scheme
        shutil.copytree(packed_by_library[scheme], folder)
        return Compressed(folder)

    return make
