"""Factors that are folded away: the model's files hold them, and it computes what it computed."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from harness import pipeline, shipped
from harness.localizing import localize
from harness.preflight import preflight
from harness.recipe import Request, load_recipe
from harness.runs import run_job
from harness.verify import verify
from tests.families.plain import decode_nvfp4
from tests.quantized import quantized
from tests.stored import read_tensors

READERS = {
    "input_layernorm": [f"self_attn.{name}" for name in ("q_proj", "k_proj", "v_proj")],
    "post_attention_layernorm": ["mlp.gate_proj", "mlp.up_proj"],
}
Tensors = dict[str, Tensor]
MADE_UP = "nvfp4_awq_local_hessian_gptq"
"""Where columns make up for the rounding of others."""
AIMED = "nvfp4_awq_local_hessian_gptaq"
"""Where they also make up for what layers before have lost."""
LAYER = "model.layers.1"
SHIFTED = "model.language_model.layers.1"
ATTENTION = [f"{LAYER}.self_attn.{name}" for name in ("q_proj", "k_proj", "v_proj")]


def with_outliers(model: Path, into: Path) -> Path:
    """Copy a model with a few features that norms, and up projections, make much larger."""
    shutil.copytree(model, into)
    (weights,) = into.glob("*.safetensors")
    tensors = load_file(weights)
    for name, tensor in tensors.items():
        if name.endswith("layernorm.weight"):
            tensor[3::19] *= 24
        elif name.endswith(("up_proj.weight", ".w3.weight")):
            tensor[5::9] *= 8
        elif name.endswith("gate_up_proj"):  # gate above up
            tensor[:, tensor.shape[1] // 2 + 5 :: 9] *= 8
    save_file(tensors, weights, metadata={"format": "pt"})
    return into


class Made:
    """One model in two formats."""

    def __init__(self, model: Path, data: Path, into: Path, qformat: str = "nvfp4_awq") -> None:
        self.source = with_outliers(model, into / "source")
        self.plain = quantized(self.source, "nvfp4", data, into / "plain")
        self.folded = quantized(self.source, qformat, data, into / "folded")

    def changed(self, edit: Callable[[Tensors, Tensors], None], into: Path) -> Path:
        """Copy the folded checkpoint after `edit`, which gets the plain one's tensors too."""
        shutil.copytree(self.folded, into)
        (into / "harness.json").unlink()  # which has the hashes
        (weights,) = into.glob("*.safetensors")
        tensors = load_file(weights)
        edit(tensors, dict(read_tensors(self.plain)))
        save_file(tensors, weights, metadata={"format": "pt"})
        return into


@pytest.fixture(scope="module")
def dense(
    tiny_qwen3: Path, calibration_jsonl: Path, tmp_path_factory: pytest.TempPathFactory
) -> Made:
    return Made(tiny_qwen3, calibration_jsonl, tmp_path_factory.mktemp("dense"))


@pytest.fixture(scope="module")
def made_up(
    tiny_qwen3: Path, calibration_jsonl: Path, tmp_path_factory: pytest.TempPathFactory
) -> Made:
    return Made(tiny_qwen3, calibration_jsonl, tmp_path_factory.mktemp("made_up"), MADE_UP)


@pytest.fixture(scope="module")
def routed_made_up(
    tiny_mixtral: Path, calibration_jsonl: Path, tmp_path_factory: pytest.TempPathFactory
) -> Made:
    """Experts of few tokens, whose scales cut off what is large."""
    return Made(tiny_mixtral, calibration_jsonl, tmp_path_factory.mktemp("made_up"), MADE_UP)


@pytest.fixture(scope="module")
def aimed(
    tiny_mixtral: Path, calibration_jsonl: Path, tmp_path_factory: pytest.TempPathFactory
) -> Made:
    return Made(tiny_mixtral, calibration_jsonl, tmp_path_factory.mktemp("aimed"), AIMED)


@pytest.fixture(scope="module")
def routed(
    tiny_mixtral: Path, calibration_jsonl: Path, tmp_path_factory: pytest.TempPathFactory
) -> Made:
    return Made(tiny_mixtral, calibration_jsonl, tmp_path_factory.mktemp("routed"))


@pytest.fixture(scope="module")
def shifted(
    tiny_qwen3_5_moe: Path, calibration_jsonl: Path, tmp_path_factory: pytest.TempPathFactory
) -> Made:
    """Norms multiply with 1 + w; shared experts, and linear attention."""
    return Made(tiny_qwen3_5_moe, calibration_jsonl, tmp_path_factory.mktemp("shifted"))


def power(found: Tensor, source: Tensor) -> Tensor:
    """Return k where one is the other times 2^k, digit for digit."""
    digits, exponent = torch.frexp(found.float())
    their_digits, their_exponent = torch.frexp(source.float())
    assert torch.equal(digits, their_digits)
    return exponent - their_exponent


def failed(checkpoint: Path, source: Path) -> set[str]:
    return {one.id for one in verify(checkpoint, source=source).errors}


def test_norms_are_divided_by_powers_of_two(dense: Made) -> None:
    found, source = read_tensors(dense.folded), read_tensors(dense.source)
    for name in ("input_layernorm", "post_attention_layernorm"):
        tensor = f"{LAYER}.{name}.weight"
        exponent = power(found[tensor], source[tensor])
        assert exponent[3::19].max() < exponent.float().mean()


def test_no_tensor_is_added_and_engines_are_told_the_same(dense: Made) -> None:
    one, other = read_tensors(dense.plain), read_tensors(dense.folded)
    assert {n: (t.dtype, t.shape) for n, t in one.items()} == {
        n: (t.dtype, t.shape) for n, t in other.items()
    }
    for name in ("config.json", "hf_quant_config.json"):
        plain, folded = (json.loads((at / name).read_bytes()) for at in (dense.plain, dense.folded))
        assert plain == folded


def test_inputs_are_measured_after_what_is_folded(dense: Made) -> None:
    plain, folded = read_tensors(dense.plain), read_tensors(dense.folded)
    for module in ATTENTION:
        assert folded[f"{module}.input_scale"] < 0.5 * plain[f"{module}.input_scale"]


def test_a_router_takes_up_what_its_norm_gave(routed: Made) -> None:
    found, source = read_tensors(routed.folded), read_tensors(routed.source)
    name = next(n for n in source if n.startswith(LAYER) and n.endswith(".gate.weight"))
    norm = f"{LAYER}.post_attention_layernorm.weight"
    exponent = power(found[norm], source[norm])
    assert exponent.any()
    assert torch.equal(power(found[name], source[name]), (-exponent).expand(len(found[name]), -1))


def test_the_unquantized_model_computes_the_same_bits(dense: Made) -> None:
    found, source = read_tensors(dense.folded), read_tensors(dense.source)
    model = AutoModelForCausalLM.from_pretrained(dense.source, dtype=torch.float32)
    ids = torch.arange(64)[None]
    tensors = {name: tensor.float() for name, tensor in source.items()}
    for layer in range(2):
        path = f"model.layers.{layer}"
        for norm, readers in READERS.items():
            name = f"{path}.{norm}.weight"
            exponent = power(found[name], source[name])
            tensors[name] = found[name].float()
            for reader in readers:
                tensors[f"{path}.{reader}.weight"] *= torch.ldexp(torch.ones(64), -exponent)
        up, down = f"{path}.mlp.up_proj", f"{path}.mlp.down_proj"
        given = decoded(dense.folded, up).norm(dim=1) / tensors[f"{up}.weight"].norm(dim=1)
        exponent = given.log2().round().int()
        assert exponent.any()
        tensors[f"{up}.weight"] *= torch.ldexp(torch.ones(48), exponent).unsqueeze(1)
        tensors[f"{down}.weight"] *= torch.ldexp(torch.ones(48), -exponent)
    with torch.no_grad():
        before = model(ids).logits
        model.load_state_dict(tensors)
        after = model(ids).logits
    assert torch.equal(before, after)


def test_what_is_folded_is_recorded(dense: Made) -> None:
    recorded = load_file(dense.folded.parent / "calibration.safetensors")
    found, source = read_tensors(dense.folded), read_tensors(dense.source)
    name = f"{LAYER}.input_layernorm.weight"
    assert torch.equal(recorded[f"{name}._folded"].int(), power(found[name], source[name]))


@pytest.mark.parametrize(
    "made", ["dense", "routed", "shifted", "made_up", "routed_made_up", "aimed"]
)
def test_verify_proves_the_fold_by_the_source_alone(
    made: str, request: pytest.FixtureRequest
) -> None:
    one: Made = request.getfixturevalue(made)
    report = verify(one.folded, source=one.source)
    assert not report.errors
    (said,) = (c.message for c in report.checks if c.id == "weights-near-source")
    assert "times powers of two" in said


def norm_alone(tensors: Tensors, plain: Tensors) -> None:
    """A norm was scaled, and nothing else."""
    tensors.update({n: t for n, t in plain.items() if n.startswith(LAYER)})
    tensors[f"{LAYER}.input_layernorm.weight"][5] *= 2


def one_forgotten(tensors: Tensors, plain: Tensors) -> None:
    """What reads a norm does not follow, in one of three."""
    tensors.update({n: t for n, t in plain.items() if n.startswith(ATTENTION[1])})


def norm_forgotten(tensors: Tensors, plain: Tensors) -> None:
    """Weights are scaled, and the norm is not."""
    name = f"{LAYER}.post_attention_layernorm.weight"
    tensors[name] = plain[name]


def no_power(tensors: Tensors, plain: Tensors) -> None:
    """One factor is not a power of two."""
    del plain
    tensors[f"{LAYER}.input_layernorm.weight"][3] *= 1.5


def exchanged(tensors: Tensors, plain: Tensors) -> None:
    """Two norms have the factors of each other."""
    names = [f"{LAYER}.{n}.weight" for n in ("input_layernorm", "post_attention_layernorm")]
    ratios = [tensors[name].float() / plain[name].float() for name in names]
    for name, ratio in zip(names, reversed(ratios), strict=True):
        tensors[name] = (plain[name].float() * ratio).bfloat16()


def down_forgotten(tensors: Tensors, plain: Tensors) -> None:
    """Rows of one weight are divided, and columns of the next are not multiplied."""
    tensors.update({n: t for n, t in plain.items() if n.startswith(f"{LAYER}.mlp.down_proj")})


def up_forgotten(tensors: Tensors, plain: Tensors) -> None:
    """Columns are multiplied, and rows before them are not divided."""
    tensors.update({n: t for n, t in plain.items() if n.startswith(f"{LAYER}.mlp.up_proj")})


def off_by_one(tensors: Tensors, plain: Tensors) -> None:
    """A norm is divided by twice as much as its readers are multiplied with, at one feature."""
    del plain
    tensors[f"{LAYER}.input_layernorm.weight"][5] *= 0.5


def scale_off(tensors: Tensors, plain: Tensors) -> None:
    """The scale of one weight is 3 % too small."""
    del plain
    tensors[f"{LAYER}.self_attn.o_proj.weight_scale_2"] *= 0.97


@pytest.mark.parametrize(
    "fault",
    [
        scale_off,
        norm_alone,
        one_forgotten,
        norm_forgotten,
        no_power,
        exchanged,
        down_forgotten,
        up_forgotten,
        off_by_one,
    ],
)
def test_a_wrong_fold_is_an_error(
    fault: Callable[[Tensors, Tensors], None], dense: Made, tmp_path: Path
) -> None:
    broken = dense.changed(fault, tmp_path / "broken")
    assert failed(broken, dense.source) & {"unquantized-tensors-copied", "weights-near-source"}


def router_forgotten(tensors: Tensors, plain: Tensors) -> None:
    """The router reads what is smaller, and does not know of it."""
    tensors.update({n: t for n, t in plain.items() if n.endswith(".gate.weight")})


def experts_exchanged(tensors: Tensors, plain: Tensors) -> None:
    """Two experts' last projections are each other's."""
    del plain
    names = [n for n in tensors if ".1." in n and ".experts.2.w2." in n]
    for name in names:
        other = name.replace(".experts.2.", ".experts.3.")
        tensors[name], tensors[other] = tensors[other], tensors[name]


def expert_forgotten(tensors: Tensors, plain: Tensors) -> None:
    """One expert's projection does not follow."""
    tensors.update({n: t for n, t in plain.items() if ".experts.5.w1." in n})


@pytest.mark.parametrize("fault", [router_forgotten, expert_forgotten, experts_exchanged])
def test_a_reader_that_was_forgotten_is_an_error(
    fault: Callable[[Tensors, Tensors], None], routed: Made, tmp_path: Path
) -> None:
    broken = routed.changed(fault, tmp_path / "broken")
    assert failed(broken, routed.source) & {"unquantized-tensors-copied", "weights-near-source"}


def test_norms_that_multiply_with_one_plus_w_are_left_alone(shifted: Made) -> None:
    found, source = read_tensors(shifted.folded), read_tensors(shifted.source)
    norms = [name for name in source if name.endswith("norm.weight")]
    assert norms
    assert all(torch.equal(found[name], source[name]) for name in norms)


def test_rows_of_one_weight_go_into_columns_of_the_next(shifted: Made) -> None:
    up, down = (
        decoded(shifted.folded, f"{SHIFTED}.mlp.shared_expert.{name}")
        for name in ("up_proj", "down_proj")
    )
    source = read_tensors(shifted.source)
    theirs_up, theirs_down = (
        source[f"{SHIFTED}.mlp.shared_expert.{name}.weight"].float()
        for name in ("up_proj", "down_proj")
    )
    given = (up.norm(dim=1) / theirs_up.norm(dim=1)).log2().round()
    assert given.min() < 0
    taken = (down.norm(dim=0) / theirs_down.norm(dim=0)).log2().round()
    assert torch.equal(taken, -given)


def decoded(checkpoint: Path, layer: str) -> Tensor:
    tensors = read_tensors(checkpoint)
    return decode_nvfp4(
        *(tensors[f"{layer}.{name}"] for name in ("weight", "weight_scale", "weight_scale_2"))
    )


def test_nothing_to_fold_is_refused(
    tiny_qwen3_5_moe: Path, calibration_jsonl: Path, tmp_path: Path
) -> None:
    recipe = yaml.safe_load((shipped.recipes() / "nvfp4.yaml").read_text())
    recipe["algorithm"] = {"smoothing": "awq"}
    recipe["exclude"] += ["*mlp*"]
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump(recipe))
    request = Request(
        model=str(tiny_qwen3_5_moe),
        recipe=path,
        calib_data=str(calibration_jsonl),
        calib_size=8,
        calib_seq=64,
        device="cpu",
    )
    job = preflight(request, into=tmp_path / "run", scored=False)
    _, record = run_job(job, into=tmp_path / "run", work=pipeline.make_checkpoint)
    assert record.failure is not None
    assert "nothing in this model takes them" in record.failure.message


def test_smoothing_goes_with_scales_and_rounding() -> None:
    found = load_recipe(
        Request(model="canary", qformat="nvfp4_awq_local_hessian_gptq", device="cpu")
    )
    assert str(found.algorithm) == "smoothed by awq, scales by local_hessian, rounded by gptq"


def test_nothing_is_said_to_be_wrong_with_a_correct_run(dense: Made) -> None:
    found = localize(dense.folded.parent)
    assert found.stage is None
    assert not any(clue.decisive for clue in found.clues)
