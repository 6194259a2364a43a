"""What layers get behind quantized ones, beside what they get in the unquantized model."""

import shutil
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from harness import pipeline
from harness.artifacts import EngineSpec, PlannedLinear, QuantPlan
from harness.calibrate import Calibration, Turn
from harness.calibrate.batches import CPU_TOKENS
from harness.calibrate.following import Following, Rounding
from harness.calibrate.forward import LayerwiseRun
from harness.calibrate.samples import make_batches, read_samples
from harness.errors import ModelError
from harness.models import (
    KeptRouting,
    ResidentLayer,
    decoder_layers,
    experts_run,
    load_model,
    open_source,
    read_inventory,
    tap_linears,
)
from harness.preflight import preflight
from harness.recipe import load_recipe, plan
from harness.request import Request
from harness.runs import run_job
from harness.serve.reference import serve_reference
from tests.sharing import write_gemma4


def requested(model: Path, texts: Path, experts: str = "grouped") -> Request:
    return Request(
        model=str(model),
        qformat="nvfp4_gptaq",
        device="cpu",
        calib_data=str(texts),
        experts=experts,
    )


class Calibrated:
    """A calibration of a tiny model for GPTAQ, of which each layer is followed as it is."""

    def __init__(self, model: Path, texts: Path, experts: str = "grouped") -> None:
        source, recipe = open_source(str(model)), load_recipe(requested(model, texts, experts))
        inventory = read_inventory(source)
        self.plan: QuantPlan = plan(recipe, inventory)
        self.calibration = Calibration(recipe, source, inventory, self.plan)

    def see(self, layer: ResidentLayer, rounding: Rounding) -> None:
        """Let all inputs of a layer be seen that is not quantized at all."""
        following = self.calibration.following
        for names in following.turns(layer):
            following.see(layer, Turn(names, layer, frozenset(), rounding))

    def follow_all(self) -> None:
        for layer in self.calibration.layers():
            self.calibration.run(layer)
            self.see(layer, as_it_is)
            self.calibration.following.go_on(layer, as_it_is)

    def inputs_of(self, layer: ResidentLayer) -> list[PlannedLinear]:
        return [
            one
            for one in self.plan.quantized
            if one.linear.parameter.tensor.startswith(f"{layer.path}.")
            and one.linear.parameter.expert in (None, 0)
        ]


class Times:
    """Rounds inputs to a multiple of them."""

    def __init__(self, factor: float) -> None:
        self._factor = factor

    def rounded(self, _: str, __: int | None, input_NI: Tensor) -> Tensor:
        return input_NI * self._factor

    def rounded_together(self, _: str, __: Tensor, input_NI: Tensor) -> Tensor:
        return input_NI * self._factor


as_it_is = Times(1)


@pytest.mark.parametrize("experts", ["grouped", "eager"])
@pytest.mark.parametrize("name", ["qwen3_5_moe", "mixtral"])
def test_where_nothing_is_quantized_both_inputs_are_the_same(
    name: str, experts: str, tiny_models: dict[str, Path], calibration_jsonl: Path
) -> None:
    one, seen = Calibrated(tiny_models[name], calibration_jsonl, experts), 0
    for layer in one.calibration.layers():
        one.calibration.run(layer)
        one.see(layer, as_it_is)
        for planned in one.inputs_of(layer):
            moments = one.calibration.moments([planned])
            assert moments.cross is not None
            assert torch.allclose(moments.cross, moments.sums, rtol=1e-5)
            assert bool(moments.sums.any())
            seen += 1
        one.calibration.following.go_on(layer, as_it_is)
    assert seen > 4  # of several layers


def test_inputs_are_summed_up_as_engines_round_them(
    tiny_qwen3: Path, calibration_jsonl: Path
) -> None:
    one = Calibrated(tiny_qwen3, calibration_jsonl)
    for layer in one.calibration.layers():
        one.calibration.run(layer)
        one.see(layer, Times(0.5))
        moments = one.calibration.moments(one.inputs_of(layer)[:1])
        assert moments.cross is not None
        assert torch.allclose(moments.cross / 2, moments.sums)  # y is as it was
        one.calibration.following.go_on(layer, as_it_is)


@pytest.mark.parametrize(
    "made",
    [
        ("qwen3_5_moe", "nvfp4_gptaq"),
        ("qwen3_moe", "nvfp4_awq_local_hessian_gptaq"),
        ("mixtral", "nvfp4_experts_only_gptaq"),
        ("qwen3", "nvfp4_act_headroom_gptaq"),
    ],
)
def test_the_second_stream_is_what_the_checkpoint_computes(
    made: tuple[str, str],
    tiny_models: dict[str, Path],
    calibration_jsonl: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Beside the reference engine on the files, which knows nothing of it."""
    streams: list[Tensor] = []
    go_on = Following.go_on

    def noted(self: Following, twin: ResidentLayer, rounding: Rounding) -> None:
        go_on(self, twin, rounding)
        _, own = self._held()
        streams.append(next(iter(own)).float())

    monkeypatch.setattr(Following, "go_on", noted)
    name, qformat = made
    model, run = in_float32(tiny_models[name], tmp_path / "model"), tmp_path / "run"
    request = replace(requested(model, calibration_jsonl), qformat=qformat)
    job = preflight(request, into=run, scored=False)
    run_job(job, into=run, work=pipeline.make_checkpoint)
    ids_BT = first_batch(model, calibration_jsonl)
    computed, unquantized = last_hidden(run / "checkpoint", ids_BT), last_hidden(model, ids_BT)
    away, apart = (computed - unquantized).norm(), (computed - streams[-1]).norm()
    assert apart < 0.01 * away


def in_float32(model: Path, folder: Path) -> Path:
    """Return a copy of a model that runs in float32, in which both ways round alike."""
    shutil.copytree(model, folder)
    for file in folder.glob("*.safetensors"):
        tensors = {name: tensor.float() for name, tensor in load_file(file).items()}
        save_file(tensors, file, metadata={"format": "pt"})
    config = folder / "config.json"
    text = config.read_text(encoding="utf-8").replace('"bfloat16"', '"float32"')
    config.write_text(text, encoding="utf-8")
    return folder


def first_batch(model: Path, texts: Path) -> Tensor:
    spec = load_recipe(requested(model, texts)).calibration
    samples = read_samples(spec, open_source(str(model)))[: spec.size]
    return make_batches(samples, batch_tokens=CPU_TOKENS)[0]


def last_hidden(model: Path, ids_BT: Tensor) -> Tensor:
    """Return what the last layer returns, on the reference engine."""
    engine = EngineSpec(name="reference", numerics="declared", device="cpu", dtype="float32")
    found: list[Tensor] = []

    def keep(_: object, __: object, output: Tensor | tuple[Tensor, ...]) -> None:
        found.append(output[0] if isinstance(output, tuple) else output)

    with serve_reference(engine, model) as served, torch.inference_mode():
        hook = decoder_layers(served.model)[-1].register_forward_hook(keep)
        served.model(input_ids=ids_BT, use_cache=False)
        hook.remove()
    return found[0]


class Routed:
    """A layer of a tiny model, of which is noted how many tokens its experts get."""

    def __init__(self, model: Path, experts: str) -> None:
        source = open_source(str(model))
        running = load_model(source, read_inventory(source), device="cpu", dtype=torch.float32)
        self.layer: nn.Module = decoder_layers(running)[0].get_submodule("mlp")
        self._running = running
        self._experts = experts
        generator = torch.Generator().manual_seed(0)
        self.first_BTH, self.second_BTH = torch.randn(2, 2, 24, 64, generator=generator)

    def tokens(self, hidden_BTH: Tensor) -> list[tuple[str, list[int]]]:
        found: list[tuple[str, list[int]]] = []

        def see(name: str, expert: int | None, x: Tensor) -> None:
            if expert is not None:
                found.append((name, [expert, len(x)]))

        def see_grouped(name: str, ends_E: Tensor, _: Tensor) -> None:
            found.append((name, ends_E.tolist()))

        tap = tap_linears(self.layer, see, see_grouped)
        with torch.inference_mode(), experts_run(self._running, self._experts), tap:
            self.layer(hidden_BTH)
        return found


@pytest.mark.parametrize("experts", ["grouped", "eager"])
@pytest.mark.parametrize("name", ["qwen3_5_moe", "qwen3_moe", "mixtral"])
def test_experts_get_the_tokens_that_they_got_in_the_first_run(
    name: str, experts: str, tiny_models: dict[str, Path]
) -> None:
    one = Routed(tiny_models[name], experts)
    routing = KeptRouting(["experts"])
    with routing.recorded(one.layer):
        first = one.tokens(one.first_BTH)
    with routing.replayed(one.layer):
        kept = one.tokens(one.second_BTH)
    assert kept == first
    assert one.tokens(one.second_BTH) != first


def test_experts_that_are_not_told_their_tokens_are_refused(
    tiny_qwen3_5_moe: Path,
) -> None:
    """As JetMoe's, which get rows that their own router has gathered."""
    one = Routed(tiny_qwen3_5_moe, "grouped")
    routing = KeptRouting([""])  # a block that chooses by itself
    refused = pytest.raises(ModelError, match="is not told by its layer which expert")
    with routing.recorded(one.layer), refused:
        one.tokens(one.first_BTH)


def test_tokens_that_reach_other_experts_are_refused(
    tiny_mixtral: Path, calibration_jsonl: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(KeptRouting, "replayed", lambda *_: nullcontext())
    monkeypatch.setattr(LayerwiseRun, "run_on", other_hidden(LayerwiseRun.run_on))
    one = Calibrated(tiny_mixtral, calibration_jsonl)
    with pytest.raises(ModelError, match="Choose gptq in place of gptaq"):
        one.follow_all()


def other_hidden(run_on: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return what runs a layer on other hidden states each time."""
    numbers = iter(range(1000))

    def run(self: LayerwiseRun, layer: ResidentLayer, batch: int, hidden_BTH: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(next(numbers))
        noise_BTH = torch.randn(hidden_BTH.shape, generator=generator)
        return run_on(self, layer, batch, noise_BTH.to(hidden_BTH.dtype))

    return run


def test_layers_that_read_each_others_keys_and_values_are_refused(
    tiny_qwen3: Path, calibration_jsonl: Path, tmp_path: Path
) -> None:
    model = write_gemma4(tmp_path, 2, tokenizer=tiny_qwen3)
    one = Calibrated(model, calibration_jsonl)
    with pytest.raises(ModelError, match="reads 'shared_kv_states' of layers before it"):
        one.follow_all()
