"""Experts that are stacked and quantized: a tensor a projection of a layer, scales beside it."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from harness.artifacts import Check
from harness.verify import verify
from tests.verify.test_verify import failed

Tensors = dict[str, torch.Tensor]
Edit = Callable[[Tensors], None]
EXPERTS, WIDTH = 4, 64
LAYERS = {
    "gpt-oss": "model.layers.0.mlp.experts",
    "Llama 4": "language_model.model.layers.0.feed_forward.experts",
}
ROUTERS = {"gpt-oss": "model.layers.0.mlp.router", "Llama 4": LAYERS["Llama 4"][:-7] + "router"}


def nvfp4_stack(out: int, *, transposed: bool) -> Tensors:
    seed = torch.Generator().manual_seed(out)
    codes = torch.randint(0, 256, (EXPERTS, out, WIDTH // 2), dtype=torch.uint8, generator=seed)
    scales = (torch.rand(EXPERTS, out, WIDTH // 16, generator=seed) + 0.5).to(torch.float8_e4m3fn)
    if transposed:
        codes, scales = codes.transpose(1, 2).contiguous(), scales.transpose(1, 2).contiguous()
    scalar = torch.tensor(0.01)
    return {
        "": codes,
        "_weight_scale": scales,
        "_weight_scale_2": scalar.clone(),
        "_input_scale": scalar.clone(),
    }


def mxfp4_stack(out: int) -> Tensors:
    codes = torch.randint(0, 256, (EXPERTS, out, WIDTH // 32, 16), dtype=torch.uint8)
    return {
        "_blocks": codes,
        "_scales": torch.full((EXPERTS, out, WIDTH // 32), 120, dtype=torch.uint8),
    }


def fp8_stack(out: int) -> Tensors:
    return {
        "": torch.ones(EXPERTS, WIDTH, out).to(torch.float8_e4m3fn),
        "_weight_scale": torch.full((EXPERTS, 1, 1), 0.01),
        "_input_scale": torch.tensor(0.01),
    }


class Stacked:
    """A checkpoint of one layer of stacked experts."""

    def __init__(self, folder: Path, algo: str, made: Callable[[int], Tensors], model: str) -> None:
        self.folder, self.path = folder, LAYERS[model]
        self.tensors: Tensors = {
            "lm_head.weight": torch.ones(8, WIDTH).bfloat16(),
            "model.embed_tokens.weight": torch.ones(8, WIDTH).bfloat16(),
            f"{ROUTERS[model]}.weight": torch.ones(EXPERTS, WIDTH).bfloat16(),
            f"{self.path}.gate_up_proj_bias": torch.ones(EXPERTS, 2 * WIDTH).bfloat16(),
        }
        for stack, out in (("gate_up_proj", 2 * WIDTH), ("down_proj", WIDTH)):
            for suffix, tensor in made(out).items():
                self.tensors[f"{self.path}.{stack}{suffix}"] = tensor
        section = {
            "quant_method": "modelopt",
            "quant_algo": algo,
            "ignore": ["lm_head", ROUTERS[model]],
        }
        config = {"num_local_experts": EXPERTS, "quantization_config": section}
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(config))
        for name in ("tokenizer.json", "generation_config.json"):
            (folder / name).write_text("{}")
        (folder / "tokenizer_config.json").write_text('{"chat_template": "{{ messages }}"}')

    def failed(self) -> dict[str, Check]:
        save_file(self.tensors, self.folder / "model.safetensors")
        return failed(verify(self.folder))


@pytest.fixture(params=list(LAYERS))
def nvfp4(tmp_path: Path, request: pytest.FixtureRequest) -> Stacked:
    made = lambda out: nvfp4_stack(out, transposed=request.param == "Llama 4")  # noqa: E731
    return Stacked(tmp_path / "stacked", "NVFP4", made, request.param)


@pytest.fixture
def mxfp4(tmp_path: Path) -> Stacked:
    return Stacked(tmp_path / "stacked", "MXFP4", mxfp4_stack, "gpt-oss")


def only_fault(stacked: Stacked) -> Check:
    (fault,) = (check for check in stacked.failed().values() if check.severity == "error")
    return fault


def test_a_good_stack_passes_whichever_way_its_matrices_lie(nvfp4: Stacked) -> None:
    assert nvfp4.failed() == {}


def test_a_stack_in_fp8_with_a_scale_for_each_expert_passes(tmp_path: Path) -> None:
    assert Stacked(tmp_path / "fp8", "FP8", fp8_stack, "Llama 4").failed() == {}


@pytest.mark.parametrize("scale", ["weight_scale", "weight_scale_2", "input_scale"])
def test_a_lost_scale_of_a_stack_is_named(nvfp4: Stacked, scale: str) -> None:
    name = f"{nvfp4.path}.down_proj_{scale}"
    del nvfp4.tensors[name]
    assert only_fault(nvfp4).examples == (name,)


def test_a_stack_that_lost_all_its_scales_is_still_quantized(nvfp4: Stacked) -> None:
    for scale in ("weight_scale", "weight_scale_2", "input_scale"):
        del nvfp4.tensors[f"{nvfp4.path}.down_proj_{scale}"]
    faults = nvfp4.failed()
    assert f"{nvfp4.path}.down_proj_weight_scale" in faults["layer-tensors-complete"].examples
    assert "unquantized-layers-ignored" not in faults


def test_a_zero_scale_in_a_stack_is_found(nvfp4: Stacked) -> None:
    nvfp4.tensors[f"{nvfp4.path}.gate_up_proj_weight_scale"].view(torch.uint8)[3, 0, 0] = 0
    assert only_fault(nvfp4).id == "scales-positive"


def test_scales_of_another_stack_do_not_fit(nvfp4: Stacked) -> None:
    other = nvfp4.tensors[f"{nvfp4.path}.gate_up_proj_weight_scale"].clone()
    nvfp4.tensors[f"{nvfp4.path}.down_proj_weight_scale"] = other
    fault = only_fault(nvfp4)
    assert (fault.id, fault.num_faulty) == ("layer-tensors-well-formed", 1)


def test_a_stack_of_too_few_experts_is_found(nvfp4: Stacked) -> None:
    for name in [n for n in nvfp4.tensors if "down_proj" in n and nvfp4.tensors[n].ndim > 1]:
        nvfp4.tensors[name] = nvfp4.tensors[name][:3].clone()
    fault = only_fault(nvfp4)
    assert fault.id == "experts-complete"
    assert "stacks 3 experts and not 4" in fault.message


def test_the_blocks_of_gpt_oss_are_quantized_experts(mxfp4: Stacked) -> None:
    assert list(mxfp4.failed()) == ["engine-loads-format"]


@pytest.mark.parametrize("lost", ["blocks", "scales"])
def test_half_of_what_gpt_oss_stores_is_named(mxfp4: Stacked, lost: str) -> None:
    name = f"{mxfp4.path}.gate_up_proj_{lost}"
    del mxfp4.tensors[name]
    assert only_fault(mxfp4).examples == (name,)


def test_a_stack_is_not_said_to_be_near_its_source(nvfp4: Stacked, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "config.json").write_text("{}")
    plain = {n: t for n, t in nvfp4.tensors.items() if t.dtype is torch.bfloat16}
    for stack, out in (("gate_up_proj", 2 * WIDTH), ("down_proj", WIDTH)):
        plain[f"{nvfp4.path}.{stack}"] = torch.ones(EXPERTS, out, WIDTH).bfloat16()
    save_file(plain, source / "model.safetensors")
    save_file(nvfp4.tensors, nvfp4.folder / "model.safetensors")
    checks = {check.id: check for check in verify(nvfp4.folder, source=source).checks}
    assert "2 stacks of experts are not compared" in checks["weights-near-source"].message
    assert checks["source-tensors-accounted"].passed


def test_names_of_both_kinds_end_with_a_report(nvfp4: Stacked) -> None:
    nvfp4.tensors[f"{nvfp4.path}.down_proj.weight"] = torch.ones(2, 2).bfloat16()
    assert nvfp4.failed()
