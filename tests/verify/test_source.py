"""Weights beside their source: every format, each made here by a plain quantizer of its own."""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from harness.artifacts import Check, IntegrityReport
from harness.verify import verify

Tensors = dict[str, Tensor]
LAYER = "model.layers.0.self_attn.o_proj"
NEIGHBOUR = "model.layers.0.mlp.down_proj"
OUT, WIDTH = 256, 256
MODELOPT = (
    "NVFP4",
    "W4A16_NVFP4",
    "FP8",
    "FP8_PER_CHANNEL_PER_TOKEN",
    "FP8_PB_WO",
    "MXFP8",
    "MXFP4",
    "W4A8_NVFP4_FP8",
)
_VALUES = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0])


def to_e2m1(x: Tensor) -> Tensor:
    """Return packed codes of the nearest values."""
    nearest = (x.abs().unsqueeze(-1) - _VALUES).abs().argmin(-1).to(torch.uint8)
    codes = nearest | ((x < 0).to(torch.uint8) << 3)
    return codes[:, 0::2] | (codes[:, 1::2] << 4)


def power_of_two(amax: Tensor, largest: float) -> Tensor:
    return torch.exp2(torch.ceil(torch.log2(amax / largest)))


def four_bits(weight: Tensor, block: int, algo: str) -> Tensors:
    blocks = weight.reshape(OUT, -1, block)
    amax = blocks.abs().amax(-1)
    if algo == "MXFP4":
        step = power_of_two(amax, 6)
        stored = {"weight_scale": (torch.log2(step) + 127).to(torch.uint8)}
    else:
        one = weight.abs().max() / (448 if algo == "W4A8_NVFP4_FP8" else 6 * 448)
        scale = (amax / 6 / one).clamp(2**-9, 448).to(torch.float8_e4m3fn)
        step = scale.float() * one
        stored = {"weight_scale": scale, "weight_scale_2": one}
    scaled = (blocks / step.unsqueeze(-1)).reshape(OUT, WIDTH)
    return {"weight": to_e2m1(scaled), **stored}


def eight_bits(weight: Tensor, algo: str) -> Tensors:
    if algo == "FP8":
        scale = step = weight.abs().max() / 448
    elif algo == "FP8_PER_CHANNEL_PER_TOKEN":
        scale = weight.abs().amax(1) / 448
        step = scale.unsqueeze(1)
    elif algo == "MXFP8":
        step = power_of_two(weight.reshape(OUT, -1, 32).abs().amax(-1), 448)
        scale = (torch.log2(step) + 127).to(torch.uint8)
        step = step.repeat_interleave(32, 1)
    else:
        tiles = weight.reshape(OUT // 128, 128, WIDTH // 128, 128).abs().amax((1, 3)) / 448
        scale = tiles.reshape(OUT // 128, 1, WIDTH // 128, 1)
        step = tiles.repeat_interleave(128, 0).repeat_interleave(128, 1)
    return {"weight": (weight / step).to(torch.float8_e4m3fn), "weight_scale": scale}


def quantized(weight: Tensor, algo: str) -> Tensors:
    weight = weight.float()
    if "NVFP4" in algo or algo == "MXFP4":
        stored = four_bits(weight, 32 if algo in {"MXFP4", "W4A8_NVFP4_FP8"} else 16, algo)
    else:
        stored = eight_bits(weight, algo)
    if algo in {"NVFP4", "FP8", "W4A8_NVFP4_FP8"}:
        stored["input_scale"] = torch.tensor(0.01)
    return stored


class Model:
    """A source model of some matrices and the checkpoint that is made of it."""

    def __init__(self, root: Path, algo: str, layers: Sequence[str] = (LAYER, NEIGHBOUR)) -> None:
        self.source, self.folder, self.algo = root / "source", root / "checkpoint", algo
        seed = torch.Generator().manual_seed(0)
        self.weights = {
            f"{name}.weight": torch.randn(OUT, WIDTH, generator=seed).bfloat16() * 0.02
            for name in (*layers, "lm_head")
        }
        self.weights["model.norm.weight"] = torch.ones(WIDTH).bfloat16()
        for folder in (self.source, self.folder):
            folder.mkdir()
            (folder / "generation_config.json").write_text('{"eos_token_id": 3}')
            (folder / "tokenizer.json").write_text('{"model": {"type": "BPE"}}')
            said = {"eos_token": "<e>", "chat_template": "{{ messages[0].content }}{{ eos_token }}"}
            (folder / "tokenizer_config.json").write_text(json.dumps(said))
        save_file(self.weights, self.source / "model.safetensors")
        (self.source / "config.json").write_text('{"hidden_size": 256, "model_type": "x"}')
        tensors = {
            n: t for n, t in self.weights.items() if n in {"lm_head.weight", "model.norm.weight"}
        }
        for name in layers:
            stored = quantized(self.weights[f"{name}.weight"], algo)
            tensors |= {f"{name}.{leaf}": t.contiguous() for leaf, t in stored.items()}
        save_file(tensors, self.folder / "model.safetensors")
        section = {"quant_algo": algo, "quant_method": "modelopt", "ignore": ["lm_head"]}
        config = {"hidden_size": 256, "model_type": "x", "quantization_config": section}
        (self.folder / "config.json").write_text(json.dumps(config))

    def change(self, edit: Callable[[Tensors], None]) -> None:
        path = self.folder / "model.safetensors"
        tensors = load_file(path)
        edit(tensors)
        save_file({n: t.contiguous() for n, t in tensors.items()}, path)

    def verify(self) -> IntegrityReport:
        return verify(self.folder, source=self.source)

    def failed(self) -> dict[str, Check]:
        return {check.id: check for check in self.verify().checks if not check.passed}


@pytest.fixture
def model(tmp_path: Path) -> Callable[[str], Model]:
    return lambda algo: Model(tmp_path, algo)


Make = Callable[[str], Model]


@pytest.mark.parametrize("algo", MODELOPT)
def test_every_format_of_modelopt_is_near_its_source(model: Make, algo: str) -> None:
    report = model(algo).verify()
    named = {check.id: check for check in report.checks}
    assert report.errors == ()
    found = float(named["weights-near-source"].message.split(algo)[1].strip(" %")) / 100
    expected = {"MXFP4": 0.12, "W4A8_NVFP4_FP8": 0.11}.get(
        algo, 0.095 if "NVFP4" in algo else 0.026
    )
    assert found == pytest.approx(expected, rel=0.1)
    assert "2 quantized weights" in named["weights-near-source"].message


@pytest.mark.parametrize("algo", MODELOPT)
def test_a_scale_that_is_too_large_is_measured(model: Make, algo: str) -> None:
    good = model(algo)

    def edit(tensors: Tensors) -> None:
        leaf = "weight_scale_2" if f"{LAYER}.weight_scale_2" in tensors else "weight_scale"
        scale = tensors[f"{LAYER}.{leaf}"]
        if scale.dtype is torch.uint8:
            tensors[f"{LAYER}.{leaf}"] = scale + 1
        else:
            tensors[f"{LAYER}.{leaf}"] = scale * 2

    good.change(edit)
    found = good.failed()["weights-near-source"]
    assert found.num_faulty == 1
    assert f"{LAYER} is off by" in found.message
    factor = float(found.message.split("its scale is ")[1].split(" times")[0])
    assert factor == pytest.approx(2, rel=0.02)


PACKED = [algo for algo in MODELOPT if "FP4" in algo]


@pytest.mark.parametrize("algo", PACKED)
def test_swapped_nibbles_are_named(model: Make, algo: str) -> None:
    good = model(algo)

    def edit(tensors: Tensors) -> None:
        codes = tensors[f"{LAYER}.weight"]
        tensors[f"{LAYER}.weight"] = (codes >> 4) | (codes << 4)

    good.change(edit)
    found = good.failed()
    assert set(found) - {"engine-loads-format"} == {"nibbles-in-order", "weights-near-source"}
    assert "1 weights fit their source with the two codes" in found["nibbles-in-order"].message


def swizzle(scale: Tensor) -> Tensor:
    """Lay block scales out as tensor cores read them: tiles of 128 rows and 4 columns."""
    rows, columns = scale.shape
    tiles = scale.reshape(rows // 128, 4, 32, columns // 4, 4).permute(0, 3, 2, 1, 4)
    return tiles.reshape(rows, columns)


SCALE_FAULTS: dict[str, tuple[Callable[[Tensors], Tensors], str]] = {
    "swizzled": (
        lambda t: {
            "weight_scale": swizzle(t["weight_scale"].view(torch.uint8)).view(torch.float8_e4m3fn)
        },
        "128 x 4 order",
    ),
    "transposed": (
        lambda t: {
            "weight_scale": t["weight_scale"]
            .view(torch.uint8)
            .T.contiguous()
            .reshape(t["weight_scale"].shape)
            .view(torch.float8_e4m3fn)
        },
        "transposed",
    ),
    "inverted": (lambda t: {"weight_scale_2": 1 / t["weight_scale_2"]}, "inverted"),
}


@pytest.mark.parametrize("fault", SCALE_FAULTS)
def test_scales_in_another_order_are_named(model: Make, fault: str) -> None:
    good = model("NVFP4")
    change, cause = SCALE_FAULTS[fault]

    def edit(tensors: Tensors) -> None:
        layer = {n.removeprefix(f"{LAYER}."): t for n, t in tensors.items() if n.startswith(LAYER)}
        tensors.update({f"{LAYER}.{leaf}": t for leaf, t in change(layer).items()})

    good.change(edit)
    assert cause in good.failed()["scale-layout"].message


def rename(old: str, new: str) -> Callable[[Tensors], None]:
    def edit(tensors: Tensors) -> None:
        for name in [n for n in tensors if n.startswith(old)]:
            tensors[new + name.removeprefix(old)] = tensors.pop(name)

    return edit


def spoil(name: str) -> Callable[[Tensors], None]:
    def edit(tensors: Tensors) -> None:
        tensors[name] = tensors[name].clone()
        tensors[name].view(-1)[7] += 1

    return edit


def test_a_changed_unquantized_tensor_is_an_error(model: Make) -> None:
    good = model("FP8")
    good.change(spoil("lm_head.weight"))
    assert list(good.failed()) == ["unquantized-tensors-copied"]
    assert good.verify().errors


def test_a_norm_that_was_rounded_again_is_a_warning(model: Make) -> None:
    good = model("FP8")

    def edit(tensors: Tensors) -> None:
        tensors["model.norm.weight"] = (tensors["model.norm.weight"].float() + 2**-7).bfloat16()

    good.change(edit)
    assert "rounded again" in good.failed()["unquantized-tensors-copied"].message
    assert good.verify().errors == ()


def test_a_prefix_written_twice_is_found(model: Make) -> None:
    good = model("FP8")
    good.change(rename("model.layers", "model.model.layers"))
    found = good.failed()["source-tensors-accounted"]
    assert "2 tensors of the source are missing, 2 are not from it" in found.message


def test_a_lost_tensor_is_found_and_a_tied_head_is_none(model: Make) -> None:
    good = model("FP8")
    good.change(rename("lm_head", "mtp.lm_head"))
    assert "lm_head.weight is missing" in str(good.failed()["source-tensors-accounted"].examples)
    config = json.loads((good.folder / "config.json").read_text())
    (good.folder / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": True}))
    missing = str(good.failed()["source-tensors-accounted"].examples)
    assert "lm_head.weight is missing" not in missing


def test_a_file_that_the_source_does_not_load_is_not_missed(model: Make) -> None:
    made = model("NVFP4")
    save_file({"layers.0.wq.weight": torch.ones(2, 2)}, made.source / "consolidated.safetensors")
    assert made.failed() == {}


@pytest.mark.parametrize("joint", ["mtp.fc", "model.layers.61.eh_proj"])
def test_a_lost_draft_head_is_a_warning(model: Make, joint: str) -> None:
    good = model("FP8")
    path = good.source / "model.safetensors"
    save_file({**load_file(path), f"{joint}.weight": torch.ones(4, 4)}, path)
    assert list(good.failed()) == ["draft-head-kept"]
    assert good.verify().errors == ()


def test_half_a_draft_head_is_an_error(model: Make) -> None:
    good = model("FP8")
    head = {"mtp.fc.weight": torch.ones(4, 4), "mtp.norm.weight": torch.ones(4)}
    for folder, kept in ((good.source, head), (good.folder, {"mtp.norm.weight": torch.ones(4)})):
        path = folder / "model.safetensors"
        save_file({**load_file(path), **kept}, path)
    assert [check.id for check in good.verify().errors] == ["draft-head-kept"]


def write(name: str, content: object) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text(json.dumps(content))


FILE_FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "a lost tokenizer": (lambda f: (f / "tokenizer.json").unlink(), "sidecars-match-source"),
    "another tokenizer": (
        write("tokenizer.json", {"model": {"type": "WordLevel"}}),
        "sidecars-match-source",
    ),
    "a lost chat template": (
        write("tokenizer_config.json", {"eos_token": "<e>"}),
        "chat-template-matches-source",
    ),
    "a template that answers otherwise": (
        write(
            "tokenizer_config.json",
            {"eos_token": "<e>", "chat_template": "{{ messages[0].content }} {{ eos_token }}"},
        ),
        "chat-template-matches-source",
    ),
    "another token in the template": (
        write(
            "tokenizer_config.json",
            {"eos_token": "<f>", "chat_template": "{{ messages[0].content }}{{ eos_token }}"},
        ),
        "chat-template-matches-source",
    ),
    "another end of text": (
        write("generation_config.json", {"eos_token_id": 4}),
        "generation-config-matches-source",
    ),
    "lost generation settings": (
        lambda f: (f / "generation_config.json").unlink(),
        "generation-config-matches-source",
    ),
}


@pytest.mark.parametrize("fault", FILE_FAULTS)
def test_a_file_beside_the_weights_that_changed_is_an_error(model: Make, fault: str) -> None:
    good = model("FP8")
    edit, check = FILE_FAULTS[fault]
    edit(good.folder)
    assert check in {found.id for found in good.verify().errors}


def test_spelling_alone_changes_no_template_and_no_tokenizer(model: Make) -> None:
    good = model("FP8")
    (good.folder / "chat_template.jinja").write_text(
        "{%- set m = messages[0] -%}{{ m['content'] + eos_token }}"
    )
    tokenizer = {"version": "1.0", "truncation": {"max_length": 4}, "model": {"type": "BPE"}}
    (good.folder / "tokenizer.json").write_text(json.dumps(tokenizer, indent=4))
    assert good.failed() == {}


def test_other_sampling_is_a_warning(model: Make) -> None:
    good = model("FP8")
    write("generation_config.json", {"eos_token_id": 3, "do_sample": True})(good.folder)
    assert list(good.failed()) == ["generation-config-matches-source"]
    assert good.verify().errors == ()


def test_another_model_in_config_json_is_an_error(model: Make) -> None:
    good = model("FP8")
    config = json.loads((good.folder / "config.json").read_text())
    (good.folder / "config.json").write_text(json.dumps({**config, "hidden_size": 512}))
    assert "hidden_size is 512 and was 256" in good.failed()["config-matches-source"].message


def test_without_a_source_nothing_is_compared(model: Make) -> None:
    good = model("FP8")
    shutil.rmtree(good.source)
    ids = {check.id for check in verify(good.folder).checks}
    assert ids.isdisjoint(
        {"weights-near-source", "nibbles-in-order", "scale-layout", "source-tensors-accounted"}
    )
