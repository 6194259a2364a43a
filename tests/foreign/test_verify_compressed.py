"""The verifier on compressed-tensors checkpoints: good ones pass, each fault has its check."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import pytest
import torch

from harness.artifacts import Check, IntegrityReport
from harness.errors import ReasonCode, UsageError
from harness.verify import verify

Tensors = dict[str, torch.Tensor]
Edit = Callable[[Tensors], None]


class Compressed(Protocol):
    folder: Path

    def change(self, edit: Edit) -> Path: ...
    def configure(self, edit: Callable[[dict[str, Any]], None]) -> Path: ...


Make = Callable[..., Compressed]
DECODER = "model.language_model.layers"
EXPERT = f"{DECODER}.1.mlp.experts.2"
ATTENTION = f"{DECODER}.3.self_attn"
VISION = "model.visual.blocks.0.mlp.linear_fc1"


def failed(report: IntegrityReport) -> dict[str, Check]:
    return {check.id: check for check in report.checks if not check.passed}


def drop(*names: str) -> Edit:
    def edit(tensors: Tensors) -> None:
        for name in names:
            del tensors[name]

    return edit


def put(name: str, value: torch.Tensor | float) -> Edit:
    def edit(tensors: Tensors) -> None:
        tensors[name] = value if isinstance(value, torch.Tensor) else torch.tensor([value])

    return edit


def drop_expert(tensors: Tensors) -> None:
    for name in [n for n in tensors if n.startswith(f"{EXPERT}.")]:
        del tensors[name]


def drop_expert_inputs(tensors: Tensors) -> None:
    for name in [n for n in tensors if ".experts." in n and n.endswith(".input_global_scale")]:
        del tensors[name]


def quantize_like(name: str, donor: str) -> Edit:
    """Give `name` the tensors of a quantized layer."""

    def edit(tensors: Tensors) -> None:
        del tensors[f"{name}.weight"]
        for leaf in ("weight_packed", "weight_scale", "weight_global_scale", "input_global_scale"):
            tensors[f"{name}.{leaf}"] = tensors[f"{donor}.{leaf}"].clone()

    return edit


def unquantize(name: str) -> Edit:
    def edit(tensors: Tensors) -> None:
        for tensor in [n for n in tensors if n.startswith(f"{name}.")]:
            del tensors[tensor]
        tensors[f"{name}.weight"] = torch.ones(64, 64, dtype=torch.bfloat16)

    return edit


def respell(old: str, new: str) -> Edit:
    def edit(tensors: Tensors) -> None:
        for name in [n for n in tensors if n.endswith(old)]:
            tensors[name.removesuffix(old) + new] = tensors.pop(name)

    return edit


def zero_a_block_scale(tensors: Tensors) -> None:
    tensors[f"{EXPERT}.up_proj.weight_scale"].view(torch.uint8)[0, 0] = 0


NAN, INFINITE = float("nan"), float("inf")
FAULTS: dict[str, tuple[Edit, str]] = {
    "every expert input scale": (drop_expert_inputs, "expert-input-scales-complete"),
    "one expert input scale": (
        drop(f"{EXPERT}.up_proj.input_global_scale"),
        "expert-input-scales-complete",
    ),
    "an expert": (drop_expert, "experts-complete"),
    "an expert's shape": (
        put(f"{EXPERT}.up_proj.weight_packed", torch.zeros(16, 16, dtype=torch.uint8)),
        "experts-complete",
    ),
    "a dense input scale": (
        drop(f"{ATTENTION}.o_proj.input_global_scale"),
        "layer-tensors-complete",
    ),
    "a global scale": (drop(f"{EXPERT}.up_proj.weight_global_scale"), "layer-tensors-complete"),
    "a packed weight": (drop(f"{ATTENTION}.o_proj.weight_packed"), "layer-tensors-complete"),
    "modelopt's spelling": (
        respell(".weight_global_scale", ".weight_scale_2"),
        "layer-tensors-complete",
    ),
    "a block scale's shape": (
        put(f"{ATTENTION}.o_proj.weight_scale", torch.ones(64, 3).to(torch.float8_e4m3fn)),
        "layer-tensors-well-formed",
    ),
    "a block scale's type": (
        put(f"{ATTENTION}.o_proj.weight_scale", torch.ones(64, 8)),
        "layer-tensors-well-formed",
    ),
    "a weight in half the bytes": (
        put(f"{ATTENTION}.o_proj.weight_packed", torch.zeros(64, 32, dtype=torch.uint8)),
        "layer-tensors-well-formed",
    ),
    "a NaN input scale": (put(f"{EXPERT}.up_proj.input_global_scale", NAN), "scales-finite"),
    "an infinite divisor": (
        put(f"{ATTENTION}.o_proj.weight_global_scale", INFINITE),
        "scales-finite",
    ),
    "a divisor of zero": (put(f"{EXPERT}.up_proj.input_global_scale", 0.0), "scales-positive"),
    "a negative divisor": (
        put(f"{ATTENTION}.o_proj.weight_global_scale", -1.0),
        "scales-positive",
    ),
    "a block scale of zero": (zero_a_block_scale, "scales-positive"),
    "a denormal divisor": (
        put(f"{EXPERT}.up_proj.input_global_scale", 1e-40),
        "scales-not-denormal",
    ),
    "an expert's gate apart from up": (
        put(f"{EXPERT}.up_proj.weight_global_scale", 4.0),
        "expert-gate-up-scales-equal",
    ),
    "q apart from k and v": (
        put(f"{ATTENTION}.q_proj.weight_global_scale", 4.0),
        "fused-scales-equal",
    ),
    "q's input scale apart": (
        put(f"{ATTENTION}.q_proj.input_global_scale", 400.0),
        "fused-input-scales-equal",
    ),
    "an input scale of nothing": (
        put(f"{ATTENTION}.o_proj.input_global_scale", 1e9),
        "input-scales-plausible",
    ),
    "an input scale from uninitialized memory": (
        put(f"{EXPERT}.down_proj.input_global_scale", 1e-12),
        "input-scales-plausible",
    ),
    "an expert that nothing was measured for": (
        put(f"{EXPERT}.down_proj.input_global_scale", 1.0),
        "input-scales-plausible",
    ),
    "an unquantized layer that no entry ignores": (
        unquantize(f"{ATTENTION}.o_proj"),
        "unquantized-layers-ignored",
    ),
    "an unquantized expert": (unquantize(f"{EXPERT}.down_proj"), "unquantized-layers-ignored"),
    "a quantized head that is ignored": (
        quantize_like("lm_head", f"{ATTENTION}.o_proj"),
        "quantized-layers-declared",
    ),
    "a quantized router": (
        quantize_like(f"{DECODER}.0.mlp.gate", f"{ATTENTION}.o_proj"),
        "routers-and-vision-unquantized",
    ),
    "a scale of keys without a KV format": (
        put(f"{ATTENTION}.k_scale", 0.1),
        "kv-scales-consistent",
    ),
    "NaN in a norm": (
        put("model.language_model.norm.weight", torch.full((64,), NAN).bfloat16()),
        "weights-finite",
    ),
}


@pytest.mark.parametrize("scheme", ["NVFP4", "NVFP4A16", "FP8", "FP8_DYNAMIC", "FP8_BLOCK"])
def test_what_the_library_packed_passes_every_check(
    packed_by_library: dict[str, Path], scheme: str
) -> None:
    report = verify(packed_by_library[scheme])
    assert [check.message for check in report.checks if not check.passed] == []
    named = {check.id: check.message for check in report.checks}
    assert named["experts-complete"].startswith("32 experts in 4 layers")
    if scheme == "NVFP4":
        assert named["expert-input-scales-complete"].startswith("96 of 96")
        assert named["expert-gate-up-scales-equal"].startswith("32 groups")
        assert report.input_scales["0.experts.up_proj"] == pytest.approx((2 / 2688, 2 / 2688))


@pytest.mark.parametrize("engine", ["vllm==0.25.0", "vllm==0.32.0", "vllm==0.33.0"])
@pytest.mark.parametrize("scheme", ["NVFP4", "NVFP4A16", "FP8", "FP8_DYNAMIC", "FP8_BLOCK"])
def test_what_the_library_packed_is_near_its_source_and_understood_by_engines(
    packed_by_library: dict[str, Path], tiny_qwen3_5_moe: Path, scheme: str, engine: str
) -> None:
    report = verify(packed_by_library[scheme], source=tiny_qwen3_5_moe, engine=engine)
    assert [check.message for check in report.checks if not check.passed] == []


SOURCE_FAULTS: dict[str, tuple[Edit, str]] = {
    "swapped nibbles": (
        lambda t: t.update({f"{EXPERT}.up_proj.weight_packed": swapped(t)}),
        "nibbles-in-order",
    ),
    "a global scale that is no divisor": (
        lambda t: t.update(
            {
                f"{ATTENTION}.o_proj.weight_global_scale": 1
                / t[f"{ATTENTION}.o_proj.weight_global_scale"]
            }
        ),
        "scale-layout",
    ),
    "a changed vision tensor": (
        put("model.visual.merger.norm.bias", torch.full((64,), 3.0).bfloat16()),
        "unquantized-tensors-copied",
    ),
}


def swapped(tensors: Tensors) -> torch.Tensor:
    codes = tensors[f"{EXPERT}.up_proj.weight_packed"]
    return (codes >> 4) | (codes << 4)


@pytest.mark.parametrize("fault", SOURCE_FAULTS)
def test_a_fault_that_the_source_shows_is_caught_by_its_own_check(
    compressed: Make, tiny_qwen3_5_moe: Path, fault: str
) -> None:
    edit, check = SOURCE_FAULTS[fault]
    assert check in failed(verify(compressed().change(edit), source=tiny_qwen3_5_moe))


def test_a_regular_expression_in_the_files_spelling_hits_nothing_in_an_engine(
    compressed: Make,
) -> None:
    """Engines keep regular expressions as they are, and ask under names of their own."""

    def rewrite(said: dict[str, Any]) -> None:
        said["ignore"] = [e for e in said["ignore"] if "visual" not in e]
        said["ignore"] += ["re:model[.]visual.*"]

    folder = compressed().configure(rewrite)
    assert failed(verify(folder)) == {}
    found = {c.id: c for c in verify(folder, engine="vllm==0.33.0").checks if not c.passed}
    assert list(found) == ["unquantized-layers-ignored", "engine-names-resolved"]
    assert "visual.blocks.0.attn.proj: unquantized in the files" in str(found)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_caught_by_its_own_check(compressed: Make, fault: str) -> None:
    edit, check = FAULTS[fault]
    assert check in failed(verify(compressed().change(edit)))


def test_the_incident_is_counted_in_the_files_own_spelling(compressed: Make) -> None:
    found = failed(verify(compressed().change(drop_expert_inputs)))
    assert list(found) == ["expert-input-scales-complete"]
    assert found["expert-input-scales-complete"].message == (
        "96 of 96 expert input_scale tensors are missing "
        "(first: model.language_model.layers.0.mlp.experts.0.down_proj.input_global_scale)"
    )


def test_different_global_scales_are_shown_as_they_are_stored(compressed: Make) -> None:
    edit = put(f"{EXPERT}.up_proj.weight_global_scale", 4.0)
    found = failed(verify(compressed().change(edit)))["expert-gate-up-scales-equal"]
    assert "different weight_global_scale" in found.message
    assert found.message.endswith(", 4)")


@pytest.mark.parametrize("scheme", ["FP8", "FP8_DYNAMIC"])
def test_fp8_scales_are_looked_at_too(compressed: Make, scheme: str) -> None:
    def edit(tensors: Tensors) -> None:
        tensors[f"{EXPERT}.up_proj.weight_scale"][0] = 0

    assert list(failed(verify(compressed(scheme).change(edit)))) == ["scales-positive"]


def test_a_static_input_scale_is_asked_of_static_fp8_alone(compressed: Make) -> None:
    edit = drop(f"{EXPERT}.up_proj.input_scale")
    assert list(failed(verify(compressed("FP8").change(edit)))) == ["expert-input-scales-complete"]


def test_a_vision_layer_may_be_quantized_where_it_is_declared(compressed: Make) -> None:
    checkpoint = compressed()
    checkpoint.change(quantize_like(VISION, f"{ATTENTION}.o_proj"))
    assert list(failed(verify(checkpoint.folder))) == ["quantized-layers-declared"]
    folder = checkpoint.configure(lambda said: said["ignore"].remove(VISION))
    assert failed(verify(folder)) == {}


def test_a_vision_layer_needs_an_entry_if_it_is_not_quantized(compressed: Make) -> None:
    folder = compressed().configure(lambda said: said["ignore"].remove(VISION))
    assert list(failed(verify(folder))) == ["unquantized-layers-ignored"]


def test_a_regular_expression_has_to_fit_from_the_beginning(compressed: Make) -> None:
    def shorten(said: dict[str, Any]) -> None:
        said["ignore"] = [e for e in said["ignore"] if "visual" not in e] + ["re:visual.*"]

    found = failed(verify(compressed().configure(shorten)))
    assert set(found) == {"unquantized-layers-ignored", "ignore-patterns-used"}
    assert "re:visual.*" in found["ignore-patterns-used"].message


def test_regular_expressions_and_names_may_be_mixed(compressed: Make) -> None:
    def rewrite(said: dict[str, Any]) -> None:
        said["ignore"] = ["lm_head", "re:.*visual.*", "re:^mtp.*"]
        said["ignore"] += ["re:.*gate$", "re:.*linear_attn.*"]

    assert failed(verify(compressed().configure(rewrite))) == {}


def test_the_output_head_is_no_linear_layer_to_engines(compressed: Make) -> None:
    folder = compressed().configure(lambda said: said["ignore"].remove("lm_head"))
    assert failed(verify(folder)) == {}


def test_two_groups_may_quantize_experts_alone(compressed: Make) -> None:
    def split(said: dict[str, Any]) -> None:
        group = said["config_groups"]["group_0"]
        dense = ["re:.*self_attn.*", "re:.*shared_expert[.].*"]
        said["config_groups"] = {
            "group_0": group | {"targets": ["re:.*mlp[.]experts[.].*"]},
            "group_1": group | {"targets": dense},
        }

    checkpoint = compressed()
    assert failed(verify(checkpoint.configure(split))) == {}
    checkpoint.configure(lambda said: said["config_groups"].pop("group_1"))
    assert "quantized-layers-declared" in failed(verify(checkpoint.folder))


def set_weights(key: str, value: object) -> Callable[[dict[str, Any]], None]:
    def edit(said: dict[str, Any]) -> None:
        said["config_groups"]["group_0"]["weights"][key] = value

    return edit


DECLARATIONS: dict[str, Callable[[dict[str, Any]], None]] = {
    "no group": lambda said: said.update(config_groups={}),
    "no targets": lambda said: said["config_groups"]["group_0"].update(targets=[]),
    "a packing of other arithmetic": lambda said: said["config_groups"]["group_0"].update(
        format="float-quantized"
    ),
    "a broken regular expression": lambda said: said["ignore"].append("re:*visual"),
    "an unknown KV format": lambda said: said.update(
        kv_cache_scheme={"type": "int", "num_bits": 8, "dynamic": True}
    ),
}
UNREAD: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "integers": (set_weights("type", "int"), "weights of 4-bit integers in groups of 16"),
    "blocks of another size": (
        set_weights("group_size", 32),
        "weights of 4-bit floats in groups of 32",
    ),
    "another library": (lambda said: said.update(quant_method="gptq"), "quant_method 'gptq'"),
}


@pytest.mark.parametrize("fault", DECLARATIONS)
def test_a_declaration_that_engines_do_not_understand_is_an_error(
    compressed: Make, fault: str
) -> None:
    folder = compressed().configure(DECLARATIONS[fault])
    assert "quantization-declared" in failed(verify(folder))


@pytest.mark.parametrize("kind", UNREAD)
def test_what_is_not_read_is_named_and_nothing_said_of_the_files(
    compressed: Make, kind: str
) -> None:
    edit, named = UNREAD[kind]
    with pytest.raises(UsageError, match=f"declares {named}.*in config.json") as caught:
        verify(compressed().configure(edit))
    assert caught.value.reason is ReasonCode.UNSUPPORTED_FORMAT
    assert "It reads quant_method" in str(caught.value) or "it reads FP8, " in str(caught.value)


KV_FP8 = {"type": "float", "num_bits": 8, "strategy": "tensor", "dynamic": False}


def test_static_kv_scales_have_to_be_there(compressed: Make) -> None:
    checkpoint = compressed()
    checkpoint.configure(lambda said: said.update(kv_cache_scheme=KV_FP8))
    found = failed(verify(checkpoint.folder))
    assert list(found) == ["kv-scales-consistent"]
    assert f"{ATTENTION} has no k_scale" in found["kv-scales-consistent"].message

    def add(tensors: Tensors) -> None:
        for leaf in ("k_scale", "v_scale"):
            tensors[f"{ATTENTION}.{leaf}"] = torch.tensor([0.02]).bfloat16()

    assert failed(verify(checkpoint.change(add))) == {}
