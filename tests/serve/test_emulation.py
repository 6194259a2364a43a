"""The arithmetic of the reference engine, against plain code and against transformers."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor
from transformers import AutoModelForImageTextToText, PreTrainedModel

from harness.artifacts import EngineSpec
from harness.serve.reference import serve_reference as serve

Make = Callable[..., Any]
E2M1 = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6, 0, -0.5, -1, -1.5, -2, -3, -4, -6])
LAYER = "model.language_model.layers.1.mlp"
TEXT = torch.tensor([[72, 101, 108, 108, 111, 32, 119, 111, 114, 108, 100]])


def stored(folder: Path) -> dict[str, Tensor]:
    with safe_open(folder / "model.safetensors", framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 -- no mapping


def plain_nvfp4_weight(tensors: dict[str, Tensor], name: str, scale_2: float) -> Tensor:
    packed = tensors[f"{name}.weight"]
    codes = torch.stack([packed & 15, packed >> 4], dim=-1).reshape(packed.shape[0], -1)
    step = tensors[f"{name}.weight_scale"].float() * torch.tensor(scale_2)
    return (E2M1[codes.long()] * step.repeat_interleave(16, dim=1)).bfloat16().float()


def plain_nvfp4_input(x: Tensor, scale: float) -> Tensor:
    """Round rows to NVFP4 block by block, value by value."""
    rounded = torch.empty_like(x)
    for row in range(x.shape[0]):
        for start in range(0, x.shape[1], 16):
            block = x[row, start : start + 16]
            step = (block.abs().max() / 6 / scale).to(torch.float8_e4m3fn).float() * scale
            for i, value in enumerate(block):
                distance = (E2M1 * step - value).abs()
                rounded[row, start + i] = E2M1[distance.argmin()] * step
    return rounded


def plain_expert(tensors: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    """Run an expert of gate, up and down projections, W4A4."""
    gate, up, down = (
        plain_nvfp4_weight(
            tensors, f"{name}.{p}_proj", tensors[f"{name}.{p}_proj.weight_scale_2"].item()
        )
        for p in ("gate", "up", "down")
    )
    x = plain_nvfp4_input(x, tensors[f"{name}.gate_proj.input_scale"].item())
    hidden = torch.nn.functional.silu(x @ gate.T) * (x @ up.T)
    return plain_nvfp4_input(hidden, tensors[f"{name}.down_proj.input_scale"].item()) @ down.T


def plain_fp8(x: Tensor, scale: float) -> Tensor:
    return (x / scale).clamp(-448, 448).to(torch.float8_e4m3fn).float() * scale


@contextmanager
def seen(model: PreTrainedModel, module: str) -> Iterator[dict[str, Tensor]]:
    """Record a module's first input and its output while the model runs."""
    found: dict[str, Tensor] = {}

    def keep(_: object, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        found.setdefault("input", inputs[0])
        found.setdefault("output", output)

    handle = model.get_submodule(module).register_forward_hook(keep)
    try:
        yield found
    finally:
        handle.remove()


def test_a_shared_expert_is_computed_as_plain_w4a4(
    exported: Make, tiny_qwen3_5_moe: Path, engine: EngineSpec
) -> None:
    folder = exported(tiny_qwen3_5_moe)
    tensors = stored(folder)
    name = f"{LAYER}.shared_expert"
    with serve(engine, folder) as served, seen(served.model, name) as layer, torch.no_grad():
        served.model(TEXT)
    expected = plain_expert(tensors, name, layer["input"].reshape(-1, 64))
    # A value near a rounding bound may go the other way; all others agree to float32.
    close = torch.isclose(layer["output"].reshape(-1, 64), expected, rtol=1e-3, atol=1e-5)
    assert close.float().mean() > 0.98


def test_routed_experts_are_computed_as_plain_w4a4(
    exported: Make, tiny_qwen3_5_moe: Path, engine: EngineSpec
) -> None:
    folder = exported(tiny_qwen3_5_moe)
    tensors = stored(folder)
    name = f"{LAYER}.experts"
    with serve(engine, folder) as served, torch.no_grad():
        experts: Any = served.model.get_submodule(name)
        x = torch.randn(3, 64, generator=torch.Generator().manual_seed(1))
        chosen, weights = torch.tensor([[5], [5], [2]]), torch.tensor([[0.5], [1.0], [2.0]])
        found = experts(x, chosen, weights)
    for row, (expert, weight) in enumerate(zip(chosen[:, 0], weights[:, 0], strict=True)):
        prefix = f"{name}.{int(expert)}"
        expected = (plain_expert(tensors, prefix, x[row : row + 1]) * weight)[0]
        assert torch.isclose(found[row], expected, rtol=1e-3, atol=1e-5).float().mean() > 0.95


def test_fp8_rounds_weights_and_inputs(
    exported: Make, tiny_qwen3_5_moe: Path, engine: EngineSpec
) -> None:
    folder = exported(tiny_qwen3_5_moe, "fp8")
    tensors = stored(folder)
    name = f"{LAYER}.shared_expert.down_proj"
    with serve(engine, folder) as served, seen(served.model, name) as layer, torch.no_grad():
        served.model(TEXT)
    weight = tensors[f"{name}.weight"].float() * tensors[f"{name}.weight_scale"]
    x = plain_fp8(layer["input"], tensors[f"{name}.input_scale"].item())
    torch.testing.assert_close(layer["output"], x @ weight.T, rtol=1e-3, atol=1e-5)


def test_w4a16_leaves_inputs_as_they_are(
    exported: Make, tiny_qwen3_5_moe: Path, engine: EngineSpec
) -> None:
    folder = exported(tiny_qwen3_5_moe, "w4a16_nvfp4")
    tensors = stored(folder)
    name = f"{LAYER}.shared_expert.down_proj"
    with serve(engine, folder) as served, seen(served.model, name) as layer, torch.no_grad():
        served.model(TEXT)
        assert served.deployment.exercised == ("weights:nvfp4",)
    weight = plain_nvfp4_weight(tensors, name, tensors[f"{name}.weight_scale_2"].item())
    torch.testing.assert_close(layer["output"], layer["input"] @ weight.T, rtol=1e-4, atol=1e-6)


def logits(engine: EngineSpec, folder: Path) -> Tensor:
    with serve(engine, folder) as served, torch.no_grad():
        found: Tensor = served.model(TEXT).logits
    return found


@pytest.mark.parametrize("kv_cache", ["fp8_cast", "fp8", "nvfp4_cast", "nvfp4"])
def test_rounded_keys_and_values_change_the_answer_a_little(
    exported: Make, tiny_qwen3_5_moe: Path, engine: EngineSpec, kv_cache: str
) -> None:
    without = logits(engine, exported(tiny_qwen3_5_moe, "w4a16_nvfp4"))
    with_kv = logits(engine, exported(tiny_qwen3_5_moe, "w4a16_nvfp4", kv_cache))
    change = (with_kv - without).norm() / without.norm()
    assert 1e-5 < change < (0.05 if "fp8" in kv_cache else 0.2)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of transformers, while it loads
def test_an_unquantized_folder_is_the_baseline(tiny_qwen3_5_moe: Path, engine: EngineSpec) -> None:
    load: Any = AutoModelForImageTextToText.from_pretrained
    theirs = load(tiny_qwen3_5_moe, dtype=torch.float32)
    with serve(engine, tiny_qwen3_5_moe) as served, torch.no_grad():
        torch.testing.assert_close(
            served.model(TEXT).logits, theirs(TEXT).logits, rtol=1e-4, atol=1e-4
        )
        deployment = served.deployment
    assert (deployment.declared, deployment.exercised) == ((), ())
    assert deployment.kernels["linear"] == "float32, torch"


def test_left_padding_does_not_change_answers(
    exported: Make, tiny_qwen3_5_moe: Path, engine: EngineSpec
) -> None:
    padded = torch.cat([torch.full((1, 5), 256), TEXT], dim=1)
    mask = torch.cat([torch.zeros(1, 5), torch.ones_like(TEXT)], dim=1).long()
    with serve(engine, exported(tiny_qwen3_5_moe, "w4a16_nvfp4")) as served, torch.no_grad():
        alone = served.model(TEXT).logits
        beside = served.model(padded, attention_mask=mask).logits[:, 5:]
    torch.testing.assert_close(beside, alone, rtol=1e-4, atol=1e-4)


def test_nothing_is_rounded_after_the_context(
    exported: Make, tiny_qwen3_5_moe: Path, engine: EngineSpec
) -> None:
    folder = exported(tiny_qwen3_5_moe)
    with serve(engine, folder) as served, torch.no_grad():
        rounded = served.model(TEXT).logits
    with torch.no_grad():
        plain = served.model(TEXT).logits
    assert not torch.equal(rounded, plain)


def test_the_deployment_says_what_it_computes(
    exported: Make, tiny_qwen3_5_moe: Path, engine: EngineSpec
) -> None:
    with serve(engine, exported(tiny_qwen3_5_moe, "nvfp4_experts_only", "fp8")) as served:
        deployment = served.deployment
        assert not hasattr(served.model.config, "quantization_config")
    assert deployment.exercised == ("weights:nvfp4", "inputs:nvfp4", "kv:fp8")
    assert deployment.declared == deployment.exercised
    assert deployment.kernels["linear"] == "float32, torch"
    assert deployment.kernels["experts"] == "emulation (weights:nvfp4, inputs:nvfp4), one by one"
    assert deployment.kernels["kv_cache"] == "emulation (fp8)"


@pytest.mark.parametrize(("qformat", "limit"), [("fp8", 0.5), ("nvfp4", 1.2)])
def test_all_four_families_are_served(
    exported: Make, tiny_models: dict[str, Path], engine: EngineSpec, qformat: str, limit: float
) -> None:
    """Random routers flip easily, so the limits are wide; noise alone would give 1.4."""
    for model in tiny_models.values():
        source, quantized = logits(engine, model), logits(engine, exported(model, qformat))
        change = (quantized - source).norm() / source.norm()
        assert 0.001 < change < limit
