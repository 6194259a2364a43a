"""One fault in each copy of a good export, and the one check that is meant to name it."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from harness.artifacts import Check, Severity
from harness.verify import verify

Tensors = dict[str, Tensor]
Edit = Callable[[Tensors], None]
DECODER = "model.language_model.layers"
EXPERTS = f"{DECODER}.1.mlp.experts"
EXPERT = f"{EXPERTS}.2"
ATTENTION = f"{DECODER}.3.self_attn"
LINEAR = f"{DECODER}.0.linear_attn"
ENGINE = "vllm==0.33.0"


class Copy:
    """A copy of a good export, with a fault."""

    def __init__(self, good: Path, folder: Path) -> None:
        self.folder = folder
        shutil.copytree(good, folder)
        (folder / "harness.json").unlink()  # its hashes would name every change

    def change(self, edit: Edit) -> None:
        path = self.folder / "model.safetensors"
        tensors = load_file(path)
        edit(tensors)
        save_file({n: t.contiguous() for n, t in tensors.items()}, path)

    def configure(self, edit: Callable[[dict[str, Any]], None]) -> None:
        """Edit the quantization sections of both files, the list under one name."""
        for file, key, names in (
            ("config.json", "quantization_config", "ignore"),
            ("hf_quant_config.json", "quantization", "exclude_modules"),
        ):
            content = json.loads((self.folder / file).read_text())
            section = content[key]
            section["ignore"] = section.pop(names)
            edit(section)
            section[names] = section.pop("ignore")
            (self.folder / file).write_text(json.dumps(content))


@pytest.fixture
def copy(good_exports: dict[str, Path], tmp_path: Path) -> Callable[[str], Copy]:
    return lambda qformat: Copy(good_exports[qformat], tmp_path / "copy")


Make = Callable[[str], Copy]


def fill(pattern: str, value: float) -> Edit:
    def edit(tensors: Tensors) -> None:
        for name in [n for n in tensors if re.search(pattern, n)]:
            tensors[name] = torch.full_like(tensors[name].float(), value).to(tensors[name].dtype)

    return edit


def repeat(leaf: str, projection: str = "down_proj") -> Edit:
    """Give all experts of a layer one expert's tensor."""

    def edit(tensors: Tensors) -> None:
        for number in range(8):
            name = f"{EXPERTS}.{number}.{projection}.{leaf}"
            tensors[name] = tensors[f"{EXPERTS}.0.{projection}.{leaf}"].clone()

    return edit


def exchange(first: str, second: str) -> Edit:
    def edit(tensors: Tensors) -> None:
        for name in [n for n in tensors if n.startswith(f"{first}.")]:
            other = second + name.removeprefix(first)
            tensors[name], tensors[other] = tensors[other].clone(), tensors[name].clone()

    return edit


def drop(pattern: str) -> Edit:
    def edit(tensors: Tensors) -> None:
        for name in [n for n in tensors if re.search(pattern, n)]:
            del tensors[name]

    return edit


def move(source: str, target: str) -> Edit:
    def edit(tensors: Tensors) -> None:
        for name in [n for n in tensors if n.startswith(f"{source}.")]:
            tensors[target + name.removeprefix(source)] = tensors[name].clone()

    return edit


def swap_nibbles(tensors: Tensors) -> None:
    name = f"{EXPERT}.up_proj.weight"
    tensors[name] = (tensors[name] >> 4) | (tensors[name] << 4)


def flip_signs(tensors: Tensors) -> None:
    name = f"{ATTENTION}.o_proj.weight"
    tensors[name] = tensors[name] ^ 0x88


def unpack_one(tensors: Tensors) -> None:
    """Leave one expert's projection in bfloat16."""
    drop(rf"{re.escape(EXPERT)}\.down_proj\.")(tensors)
    tensors[f"{EXPERT}.down_proj.weight"] = torch.ones(64, 32).bfloat16()


def plant_nan(tensors: Tensors) -> None:
    tensors[f"{EXPERT}.up_proj.weight_scale"].view(torch.uint8)[3, 0] = 0x7F


FAULTS: dict[str, tuple[str, Edit, str]] = {
    "all expert input scales": (
        "nvfp4",
        drop(r"experts\.\d.*input_scale"),
        "expert-input-scales-complete",
    ),
    "one expert input scale": (
        "fp8",
        drop(r"1.mlp.experts.5.up_proj.input_scale"),
        "expert-input-scales-complete",
    ),
    "an expert": ("nvfp4", drop(rf"{re.escape(EXPERT)}\."), "experts-complete"),
    "an expert too many": ("nvfp4", move(f"{EXPERTS}.0", f"{EXPERTS}.8"), "experts-complete"),
    "an expert in bfloat16": ("nvfp4", unpack_one, "experts-complete"),
    "a weight scale": ("fp8", drop(r"3.self_attn.o_proj.weight_scale"), "layer-tensors-complete"),
    "a NaN block scale": ("nvfp4", plant_nan, "scales-finite"),
    "an infinite input scale": (
        "fp8",
        fill(r"1.mlp.experts.2.up_proj.input_scale", float("inf")),
        "scales-finite",
    ),
    "zero block scales": (
        "nvfp4",
        fill(r"experts.2.up_proj.weight_scale$", 0.0),
        "scales-positive",
    ),
    "a zero input scale": (
        "fp8",
        fill(r"1.mlp.experts.2.up_proj.input_scale", 0.0),
        "scales-positive",
    ),
    "a dead expert's denormal": (
        "nvfp4",
        fill(r"1.mlp.experts.2.up_proj.input_scale", 1e-41),
        "scales-not-denormal",
    ),
    "gate apart from up": (
        "nvfp4",
        fill(r"1.mlp.experts.2.gate_proj.weight_scale_2", 0.5),
        "expert-gate-up-scales-equal",
    ),
    "qkv apart from z": (
        "nvfp4",
        fill(r"0.linear_attn.in_proj_z.weight_scale_2", 0.5),
        "fused-scales-equal",
    ),
    "one expert's global scale for all": (
        "nvfp4",
        repeat("weight_scale_2"),
        "expert-scales-distinct",
    ),
    "one expert's block scales for all": (
        "nvfp4",
        repeat("weight_scale"),
        "expert-scales-distinct",
    ),
    "one expert's FP8 scale for all": ("fp8", repeat("weight_scale"), "expert-scales-distinct"),
    "expert inputs of next to nothing": (
        "nvfp4",
        fill(r"experts\.\d.*input_scale", 1e-9),
        "input-scales-measured",
    ),
    "one input out of proportion": (
        "nvfp4",
        fill(r"1.mlp.experts.2.down_proj.input_scale", 1e-8),
        "input-scales-plausible",
    ),
    "one weight scale out of proportion": (
        "fp8",
        fill(r"1.mlp.experts.2.down_proj.weight_scale", 1e3),
        "weight-scales-plausible",
    ),
    "a layer of zeros": ("nvfp4", fill(r"3.self_attn.o_proj.weight$", 0), "weights-not-zero"),
    "NaN in a norm": ("nvfp4", fill(r"language_model.norm.weight", float("nan")), "weights-finite"),
    "a quantized router": (
        "nvfp4",
        move(f"{ATTENTION}.o_proj", f"{DECODER}.0.mlp.gate"),
        "routers-and-vision-unquantized",
    ),
    "a quantized vision layer": (
        "nvfp4",
        move(f"{ATTENTION}.o_proj", "model.visual.blocks.0.mlp.linear_fc1"),
        "routers-and-vision-unquantized",
    ),
    "a quantized embedding": (
        "nvfp4",
        move(f"{ATTENTION}.o_proj", "model.language_model.embed_tokens"),
        "embeddings-and-norms-unquantized",
    ),
    "a quantized head on the list": (
        "nvfp4",
        move(f"{ATTENTION}.o_proj", "lm_head"),
        "quantized-layers-declared",
    ),
    "a scale of values": ("nvfp4", drop(r"v_scale"), "kv-scales-consistent"),
    "swapped nibbles": ("nvfp4", swap_nibbles, "nibbles-in-order"),
    "flipped signs": ("nvfp4", flip_signs, "weights-near-source"),
    "gate and up exchanged": (
        "nvfp4",
        exchange(f"{EXPERT}.gate_proj", f"{EXPERT}.up_proj"),
        "weights-near-source",
    ),
    "two experts exchanged": ("fp8", exchange(EXPERT, f"{EXPERTS}.3"), "weights-near-source"),
    "an inverted global scale": (
        "nvfp4",
        lambda t: t.update(
            {f"{ATTENTION}.o_proj.weight_scale_2": 1 / t[f"{ATTENTION}.o_proj.weight_scale_2"]}
        ),
        "scale-layout",
    ),
    "a changed vision tensor": (
        "nvfp4",
        fill(r"visual.patch_embed.proj.weight", 0.25),
        "unquantized-tensors-copied",
    ),
    "a lost vision tensor": (
        "nvfp4",
        drop(r"visual.merger.linear_fc1.weight"),
        "source-tensors-accounted",
    ),
    "a lost draft head": ("nvfp4", drop(r"^mtp\."), "draft-head-kept"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_in_the_tensors_is_caught_by_the_check_that_names_it(
    copy: Make, tiny_qwen3_5_moe: Path, fault: str
) -> None:
    qformat, edit, check = FAULTS[fault]
    damaged = copy(qformat)
    damaged.change(edit)
    report = verify(damaged.folder, source=tiny_qwen3_5_moe, engine=ENGINE)
    found = {c.id: c for c in report.checks if not c.passed}
    assert check in found
    assert found[check].incident.startswith("https://github.com/")


def test_a_mixed_up_weight_is_traced_to_where_it_came_from(
    copy: Make, tiny_qwen3_5_moe: Path
) -> None:
    damaged = copy("fp8")
    damaged.change(exchange(EXPERT, f"{EXPERTS}.3"))
    (check,) = verify(damaged.folder, source=tiny_qwen3_5_moe).errors
    assert f"{EXPERT}.down_proj is off by" in check.message
    assert f"it was made from {EXPERTS}.3.down_proj" in check.message
    assert check.num_faulty == 6


def test_one_scale_for_all_experts_by_a_recipe_is_no_fault(
    copy: Make, tiny_qwen3_5_moe: Path
) -> None:
    """The layer's largest amax for every expert: only one expert reaches the largest code."""
    damaged = copy("fp8")
    source = load_file(tiny_qwen3_5_moe / "model.safetensors")[f"{EXPERTS}.down_proj"].float()

    def edit(tensors: Tensors) -> None:
        scale = source.abs().max() / 448
        for number in range(8):
            name = f"{EXPERTS}.{number}.down_proj"
            tensors[f"{name}.weight"] = (source[number] / scale).to(torch.float8_e4m3fn)
            tensors[f"{name}.weight_scale"] = scale.clone()

    damaged.change(edit)
    report = verify(damaged.folder, source=tiny_qwen3_5_moe)
    assert [c.message for c in report.checks if not c.passed] == []


def listing(*entries: str, without: str = "") -> Callable[[dict[str, Any]], None]:
    def edit(section: dict[str, Any]) -> None:
        kept = [e for e in section["ignore"] if not (without and re.search(without, e))]
        section["ignore"] = [*kept, *entries]

    return edit


def by_wildcards(section: dict[str, Any]) -> None:
    """Name the parts of a fused layer by wildcards, which engines look up by exact names alone."""
    kept = [e for e in section["ignore"] if "in_proj_" not in e]
    section["ignore"] = [*kept, "*in_proj_a", "*in_proj_b"]


LISTS: dict[str, tuple[Callable[[dict[str, Any]], None], str, Severity]] = {
    "an entry for layers 1 and 10 to 19": (
        listing(f"{DECODER}.1*"),
        "quantized-layers-declared",
        Severity.ERROR,
    ),
    "an entry that hits nothing": (
        listing("model.layers.77.mlp"),
        "ignore-patterns-used",
        Severity.WARNING,
    ),
    "a vision layer that is not listed": (
        listing(without="visual"),
        "unquantized-layers-ignored",
        Severity.ERROR,
    ),
    "a vision layer that the engine asks for": (
        listing(without="visual"),
        "engine-names-resolved",
        Severity.ERROR,
    ),
    "parts of a fused layer by wildcards": (by_wildcards, "engine-names-resolved", Severity.ERROR),
    "a part of a fused layer": (
        listing(without=r"in_proj_b(a)?$"),
        "engine-names-resolved",
        Severity.ERROR,
    ),
    "a part of q, k and v": (
        listing(f"{ATTENTION}.q_proj"),
        "engine-names-resolved",
        Severity.ERROR,
    ),
    "the draft head": (listing(without="^mtp"), "unquantized-layers-ignored", Severity.ERROR),
    "blocks of another size": (
        lambda s: s.update(group_size=32),
        "declarations-agree",
        Severity.ERROR,
    ),
    "no algorithm": (
        lambda s: s.update(quant_algo=None),
        "quantization-declared",
        Severity.ERROR,
    ),
}


@pytest.mark.parametrize("fault", LISTS)
def test_a_fault_in_the_list_is_caught_by_the_check_that_names_it(copy: Make, fault: str) -> None:
    edit, check, severity = LISTS[fault]
    damaged = copy("nvfp4")
    damaged.configure(edit)
    found = {c.id: c for c in verify(damaged.folder, engine=ENGINE).checks if not c.passed}
    assert found[check].severity is severity


def test_a_router_that_is_not_listed_is_worth_a_warning_where_no_engine_is_named(
    copy: Make,
) -> None:
    """vLLM builds it unquantized whatever is listed."""
    damaged = copy("nvfp4")
    damaged.configure(listing(without=r"mlp\.gate$"))
    (found,) = (c for c in verify(damaged.folder).checks if not c.passed)
    assert (found.id, found.severity) == ("routers-ignored", Severity.WARNING)
    assert all(
        c.passed for c in verify(damaged.folder, engine=ENGINE).checks if c.id != "engine-widths"
    )


def leave_experts(tensors: Tensors) -> None:
    """Put the experts back as the source has them, stacked and in bfloat16."""
    drop(r"language_model.*\.experts\.\d")(tensors)
    for layer in range(4):
        tensors[f"{DECODER}.{layer}.mlp.experts.gate_up_proj"] = torch.ones(8, 1024, 64).bfloat16()
        tensors[f"{DECODER}.{layer}.mlp.experts.down_proj"] = torch.ones(8, 64, 32).bfloat16()


def test_experts_left_in_bfloat16_and_listed_so_are_a_warning(copy: Make) -> None:
    damaged = copy("nvfp4")
    damaged.change(leave_experts)
    damaged.configure(listing(*(f"{DECODER}.{n}.mlp.experts" for n in range(4))))
    report = verify(damaged.folder)
    assert report.errors == ()
    found = {c.id: c.message for c in report.checks if not c.passed}
    assert found["experts-quantized"].startswith("routed experts of 4 of 4 layers")
    assert "linear weights are quantized" in found["bits-per-weight"]


def test_an_entry_for_more_layers_than_it_names_is_a_warning_until_one_is_quantized(
    checkpoint: Callable[..., Any],
) -> None:
    made = checkpoint()

    def add(tensors: Tensors) -> None:
        for layer in (1, 10):
            tensors[f"model.extra.layers.{layer}.proj.weight"] = torch.ones(4, 4).bfloat16()

    made.change(add)

    def ignore(section: dict[str, Any]) -> None:
        key = "ignore" if "ignore" in section else "exclude_modules"
        section[key] = [*section[key], "model.extra.layers.1*"]

    made.configure(ignore)
    (found,) = [c for c in verify(made.folder).checks if not c.passed]
    assert (found.id, found.severity) == ("ignore-patterns-precise", Severity.WARNING)
    assert "also hits model.extra.layers.10.proj" in found.message

    def pack(tensors: Tensors) -> None:
        donor = f"{DECODER}.1.self_attn.o_proj"
        for leaf in ("weight", "weight_scale", "weight_scale_2", "input_scale"):
            tensors[f"model.extra.layers.10.proj.{leaf}"] = tensors[f"{donor}.{leaf}"].clone()

    made.change(pack)
    failed = {c.id: c for c in verify(made.folder).checks if not c.passed}
    assert failed["ignore-patterns-precise"].severity is Severity.ERROR


def of_baseline(folder: Path, baseline: Path) -> Check:
    checks = verify(folder, baseline=baseline).checks
    return next(check for check in checks if check.id == "weights-near-baseline")


@pytest.mark.parametrize("qformat", ["fp8", "nvfp4"])
def test_one_damaged_weight_among_the_baselines_is_an_error(
    copy: Make, tiny_qwen3_5_moe: Path, qformat: str
) -> None:
    damaged = copy(qformat)
    name = f"{EXPERT}.down_proj.weight_scale"
    damaged.change(
        lambda tensors: tensors.update({name: (tensors[name].float() * 2).to(tensors[name].dtype)})
    )
    check = of_baseline(damaged.folder, tiny_qwen3_5_moe)
    assert (check.passed, check.severity, check.num_faulty) == (False, Severity.ERROR, 1)
    assert "its scale is" in check.message


@pytest.mark.parametrize("times", [0.98, 1.02])
def test_a_scale_that_is_a_little_off_is_an_error(
    copy: Make, tiny_qwen3_5_moe: Path, times: float
) -> None:
    damaged = copy("fp8")
    name = f"{EXPERT}.down_proj.weight_scale"
    damaged.change(lambda tensors: tensors.update({name: tensors[name] * times}))
    check = of_baseline(damaged.folder, tiny_qwen3_5_moe)
    assert (check.passed, check.severity, check.num_faulty) == (False, Severity.ERROR, 1)
    assert "its scale is" in check.message


def test_input_scales_that_are_all_next_to_nothing_are_an_error(copy: Make) -> None:
    damaged = copy("nvfp4")

    def shrink(tensors: Tensors) -> None:
        for name in [n for n in tensors if n.endswith(".input_scale")]:
            tensors[name] = tensors[name] * 1e-6

    damaged.change(shrink)
    checks = verify(damaged.folder).checks
    check = next(check for check in checks if check.id == "input-scales-measured")
    assert (check.passed, check.severity) == (False, Severity.ERROR)


def test_scales_that_are_all_a_little_off_are_an_error(copy: Make, tiny_qwen3_5_moe: Path) -> None:
    damaged = copy("fp8")

    def shrink(tensors: Tensors) -> None:
        for name in [n for n in tensors if n.endswith(".weight_scale")]:
            tensors[name] = tensors[name] * 0.95

    damaged.change(shrink)
    checks = verify(damaged.folder, source=tiny_qwen3_5_moe).checks
    check = next(check for check in checks if check.id == "weights-near-source")
    assert (check.passed, check.severity) == (False, Severity.ERROR)


def test_weights_that_were_trained_on_are_no_fault(copy: Make, tiny_qwen3_5_moe: Path) -> None:
    trained = copy("fp8")

    def train(tensors: Tensors) -> None:
        for name in [n for n in tensors if n.endswith(".weight_scale")]:
            tensors[name] = tensors[name] * 1.5

    trained.change(train)
    check = of_baseline(trained.folder, tiny_qwen3_5_moe)
    assert check.passed
    assert "this says nothing of it" in check.message


def test_a_checkpoint_of_the_baseline_is_near_it(copy: Make, tiny_qwen3_5_moe: Path) -> None:
    check = of_baseline(copy("nvfp4").folder, tiny_qwen3_5_moe)
    assert check.passed
    assert check.message.endswith("quantized weights are near the baseline's")
