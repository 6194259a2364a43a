"""Calibration on small real models: what is measured, and what ends the run."""

import dataclasses
import json
import math
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from harness.artifacts import CalibrationStats, Inventory, KvFormat, Slice
from harness.calibrate import calibrate as calibrate_room
from harness.calibrate import forward, read_stats, write_stats
from harness.calibrate.samples import make_batches, read_samples
from harness.errors import (
    CorruptWeightError,
    DataError,
    ModelError,
    ReasonCode,
    RejectedError,
    RunDirectoryError,
    StageError,
)
from harness.models import Source, StreamedModel, load_model
from tests.calibrate.conftest import Case, MakeCase

FAMILIES = ["qwen3_5_moe", "qwen3_moe", "mixtral", "qwen3"]
ROUTED = FAMILIES[:3]


def _batches(case: Case) -> list[Tensor]:
    spec = case.recipe.calibration
    return make_batches(read_samples(spec, case.source), batch_tokens=spec.batch_tokens or 0)


class _Hooks:
    """Measures with module hooks, and each expert's product by hand."""

    def __init__(self, model: nn.Module) -> None:
        self.amax: dict[str, float] = {}
        for name, module in model.named_modules():
            if name.endswith(".experts"):
                module.register_forward_pre_hook(partial(self._see_experts, name))
            elif isinstance(module, nn.Linear):
                module.register_forward_pre_hook(partial(self._see_linear, name))

    def _see_linear(self, name: str, _: nn.Module, arguments: tuple[Tensor]) -> None:
        self._widen(f"{name}.input_quantizer", arguments[0])

    def _see_experts(
        self, name: str, experts: nn.Module, arguments: tuple[Tensor, Tensor, Tensor]
    ) -> None:
        hidden, chosen, _ = arguments
        self._widen(f"{name}.gate_up_proj_input_quantizer", hidden)
        for expert, gate_up in enumerate(experts.get_parameter("gate_up_proj")):
            rows = hidden[(chosen == expert).any(dim=-1)]
            gate, up = (rows @ gate_up.T).chunk(2, dim=-1)
            product = nn.functional.silu(gate) * up
            self._widen(f"{name}.down_proj_input_quantizer", product)

    def _widen(self, name: str, x: Tensor) -> None:
        if len(x):
            self.amax[name] = max(self.amax.get(name, 0.0), float(x.abs().max()))


def _reference_input_amax(case: Case) -> dict[str, float]:
    """Measure transformers' own model with hooks."""
    ours = load_model(case.source, case.inventory, device="cpu", dtype=torch.bfloat16)
    model = type(ours).from_pretrained(
        case.source.path, dtype=torch.bfloat16, experts_implementation="eager"
    )
    hooks = _Hooks(model)
    with torch.inference_mode():
        for batch in _batches(case):
            model(input_ids=batch)
    wanted = {p.linear.input_quantizer for p in case.plan.quantized}
    return {name: value for name, value in hooks.amax.items() if name in wanted}


@pytest.mark.parametrize("family", FAMILIES)
def test_ranges_equal_those_of_plain_hooks(
    tiny_models: dict[str, Path], make_case: MakeCase, family: str
) -> None:
    case = make_case(tiny_models[family], kv_cache=KvFormat.NONE)
    expected = _reference_input_amax(case)
    actual = case.run().input_amax
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        # The product of gate and up is computed over other rows, so bf16 may round differently.
        assert actual[name] == pytest.approx(value, rel=0.01 if "down_proj" in name else 0), name


@pytest.mark.parametrize("family", FAMILIES)
def test_weight_ranges_are_exact(
    tiny_models: dict[str, Path], make_case: MakeCase, family: str
) -> None:
    case = make_case(tiny_models[family], inputs=None, kv_cache=KvFormat.NONE)
    stats = case.run()
    files = load_file(tiny_models[family] / "model.safetensors")
    assert stats.weight_amax.keys() == {p.linear.name for p in case.plan.quantized}
    for planned in case.plan.quantized:
        where = planned.linear.source
        weight = files[where.tensor] if where.expert is None else files[where.tensor][where.expert]
        rows = weight if where.rows is None else weight[slice(*where.rows)]
        assert stats.weight_amax[planned.linear.name] == float(rows.float().abs().max())


def test_weight_only_plans_run_no_text(tiny_models: dict[str, Path], make_case: MakeCase) -> None:
    case = make_case(
        tiny_models["mixtral"], data="/no/such/file", inputs=None, kv_cache=KvFormat.FP8_CAST
    )
    stats = case.run()
    assert (stats.input_amax, stats.coverage, stats.num_samples) == ({}, (), 0)
    assert stats.weight_amax


def test_weight_only_plans_with_calibrated_keys_run_text(
    tiny_models: dict[str, Path], make_case: MakeCase
) -> None:
    case = make_case(tiny_models["mixtral"], inputs=None, kv_cache=KvFormat.FP8)
    names = {n for a in case.plan.attentions for n in (a.k_quantizer, a.v_quantizer)}
    assert case.run().input_amax.keys() == names


@pytest.mark.parametrize("family", ROUTED)
def test_every_token_is_counted_at_its_experts(
    tiny_models: dict[str, Path], make_case: MakeCase, family: str
) -> None:
    stats = make_case(tiny_models[family]).run()
    num_layers = 4 if family == "qwen3_5_moe" else 2
    assert len(stats.coverage) == 2 * num_layers
    assert {c.projection for c in stats.coverage} == {"gate_up_proj", "down_proj"}
    for layer in stats.coverage:
        assert sum(layer.tokens) == 2 * stats.num_tokens  # two experts a token
        assert all((c > 0) == (t > 0) for c, t in zip(layer.calls, layer.tokens, strict=True))
        assert len(layer.tokens) == 8
    assert stats.num_samples == 12
    assert stats.num_tokens == 4 * (40 + 60 + 64)


def test_fused_and_per_expert_sources_give_the_same_stats(
    tiny_qwen3_5_moe: Path,
    tiny_qwen3_5_moe_per_expert: Path,
    tiny_qwen3_5_moe_sharded: Path,
    make_case: MakeCase,
) -> None:
    expected = make_case(tiny_qwen3_5_moe).run()
    assert make_case(tiny_qwen3_5_moe_per_expert).run() == expected
    assert make_case(tiny_qwen3_5_moe_sharded).run() == expected


@pytest.mark.parametrize("family", FAMILIES)
def test_layer_by_layer_equals_the_whole_run(
    tiny_models: dict[str, Path], make_case: MakeCase, family: str
) -> None:
    """The output layer, which is behind the last decoder layer, is planned too."""
    whole = make_case(tiny_models[family]).run()
    assert "lm_head.input_quantizer" in whole.input_amax
    assert make_case(tiny_models[family], layerwise=True).run() == whole


def test_layer_by_layer_holds_the_layer_that_runs_and_the_next(
    tiny_models: dict[str, Path], make_case: MakeCase, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = make_case(tiny_models["qwen3_5_moe"], layerwise=True)
    streams: list[StreamedModel] = []
    held: list[int] = []

    def open_stream(
        source: Source,
        inventory: Inventory,
        **options: Any,  # noqa: ANN401  # passed on
    ) -> StreamedModel:
        streams.append(StreamedModel(source, inventory, **options))
        return streams[0]

    def num_held() -> int:
        layers = streams[0]._real  # noqa: SLF001  # what lies in memory is what is asked
        return sum(any(not p.is_meta for p in layer.parameters()) for layer in layers)

    run_layer = forward._run_layer  # noqa: SLF001  # looks at the model in the middle of the run

    def spy(layer: nn.Module, hidden: Tensor, call: object) -> Tensor:
        held.append(num_held())
        return run_layer(layer, hidden, call)  # type: ignore[arg-type]  # passed on as it is

    monkeypatch.setattr("harness.calibrate.measure.StreamedModel", open_stream)
    monkeypatch.setattr(forward, "_run_layer", spy)
    case.run()
    num_layers = len(streams[0])
    assert len(held) == num_layers * len(_batches(case))
    assert num_layers > 2
    assert set(held) <= {1, 2}
    assert num_held() == 0


def test_padding_is_never_measured(
    tiny_models: dict[str, Path], make_case: MakeCase, tmp_path: Path
) -> None:
    """Samples of many lengths give what each gives alone; a row of padding would show."""
    lines = [{"input_ids": [(7 * i + j) % 250 for j in range(3 + i)]} for i in range(9)]
    data = tmp_path / "data.jsonl"
    data.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    model = tiny_models["qwen3_moe"]
    together = make_case(model, data=data).run()
    alone: dict[str, float] = {}
    for index, line in enumerate(lines):
        one = tmp_path / f"{index}.jsonl"
        one.write_text(json.dumps(line), encoding="utf-8")
        for name, value in make_case(model, data=one).run().input_amax.items():
            alone[name] = max(value, alone.get(name, 0.0))
    assert together.input_amax == pytest.approx(alone, rel=0.01)
    assert together.num_tokens == sum(3 + i for i in range(9))


@contextmanager
def _as_it_comes(model: nn.Module, way: str) -> Iterator[None]:
    del model, way
    yield


@pytest.mark.parametrize("layerwise", [False, True])
@pytest.mark.parametrize("family", ROUTED)
def test_without_eager_experts_the_run_ends_with_the_cause(
    tiny_models: dict[str, Path],
    make_case: MakeCase,
    monkeypatch: pytest.MonkeyPatch,
    family: str,
    *,
    layerwise: bool,
) -> None:
    monkeypatch.setattr(forward, "experts_run", _as_it_comes)
    with pytest.raises(RejectedError, match=r"expert linear calls: 0.*fused kernel") as caught:
        make_case(tiny_models[family], layerwise=layerwise).run()
    assert caught.value.reason is ReasonCode.NO_EXPERT_OBSERVED
    assert caught.value.exit_code == 4
    assert "layers.0.mlp.experts" in str(caught.value)


def test_a_planned_layer_that_text_never_reaches_ends_the_run(
    tiny_models: dict[str, Path], make_case: MakeCase
) -> None:
    case = make_case(tiny_models["qwen3_5_moe"])
    unseen = case.plan.quantized[0]
    merger = "model.visual.merger.linear_fc1"
    linear = dataclasses.replace(
        unseen.linear,
        parameter=Slice(tensor=f"{merger}.weight"),
        input_quantizer=f"{merger}.input_quantizer",
    )
    plan = dataclasses.replace(
        case.plan, quantized=(dataclasses.replace(unseen, linear=linear), *case.plan.quantized)
    )
    with pytest.raises(RejectedError, match=r"1 input quantizer.*visual\.merger") as caught:
        case._replace(plan=plan).run()
    assert caught.value.reason is ReasonCode.QUANTIZER_NOT_OBSERVED


def _changed(folder: Path, into: Path, name: str, change: float) -> Path:
    """Copy a model with the elements of one tensor's first row set to `change`."""
    copy = Path(shutil.copytree(folder, into))
    tensors = load_file(copy / "model.safetensors")
    tensors[name][0] = change
    save_file(tensors, copy / "model.safetensors")
    return copy


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_weight_that_is_not_finite_is_named(
    tiny_qwen3_5_moe: Path, make_case: MakeCase, tmp_path: Path, value: float
) -> None:
    name = "model.language_model.layers.2.mlp.experts.down_proj"
    folder = _changed(tiny_qwen3_5_moe, tmp_path / "model", name, value)
    with pytest.raises(CorruptWeightError, match=f"'{name}' holds NaN.*experts.0.down_proj"):
        make_case(folder).run()


def test_a_range_of_zero_is_refused(
    tiny_models: dict[str, Path], make_case: MakeCase, tmp_path: Path
) -> None:
    name = "model.layers.1.input_layernorm.weight"
    folder = Path(shutil.copytree(tiny_models["qwen3"], tmp_path / "model"))
    tensors = load_file(folder / "model.safetensors")
    save_file(tensors | {name: torch.zeros(64).bfloat16()}, folder / "model.safetensors")
    with pytest.raises(RejectedError, match=r"saw only zeros.*layers\.1\.self_attn") as caught:
        make_case(folder).run()
    assert caught.value.reason is ReasonCode.UNUSABLE_RANGE


def test_a_nan_among_the_activations_is_refused(
    tiny_models: dict[str, Path], make_case: MakeCase, tmp_path: Path
) -> None:
    name = "model.layers.1.input_layernorm.weight"
    folder = _changed(tiny_models["qwen3"], tmp_path / "model", name, math.nan)
    with pytest.raises(RejectedError, match="NaN or infinity") as caught:
        make_case(folder).run()
    assert caught.value.reason is ReasonCode.UNUSABLE_RANGE


@pytest.mark.parametrize("layerwise", [False, True])
def test_running_out_of_memory_says_what_to_change(
    tiny_models: dict[str, Path],
    make_case: MakeCase,
    monkeypatch: pytest.MonkeyPatch,
    *,
    layerwise: bool,
) -> None:
    def too_much(*_: object, **__: object) -> None:
        torch.empty(1 << 50)

    monkeypatch.setattr(forward, "_run_layer" if layerwise else "_forward", too_much)
    with pytest.raises(StageError, match=r"with one sample of \d+ tokens a batch") as caught:
        make_case(tiny_models["qwen3"], layerwise=layerwise).run()
    assert caught.value.reason is ReasonCode.OUT_OF_MEMORY
    assert ("layerwise to true" in str(caught.value)) is not layerwise


@pytest.mark.parametrize("layerwise", [False, True])
def test_a_batch_that_is_too_big_is_halved(
    tiny_models: dict[str, Path],
    make_case: MakeCase,
    monkeypatch: pytest.MonkeyPatch,
    *,
    layerwise: bool,
) -> None:
    """What was seen before the memory ran out does not count twice."""
    name = "_run_layer" if layerwise else "_forward"
    run, sizes = getattr(forward, name), []

    def limited(*arguments: Any, **options: Any) -> object:  # noqa: ANN401  # passed on
        tokens = arguments[1].shape[0] * arguments[1].shape[1]
        sizes.append(tokens)
        if tokens > 130 and len(sizes) > 2:  # in the middle of the first attempt
            torch.empty(1 << 50)
        return run(*arguments, **options)

    monkeypatch.setattr(forward, name, limited)
    model = tiny_models["qwen3_moe"]
    stats = make_case(model, layerwise=layerwise, batch_tokens=512).run()
    assert stats.batch_tokens == 128
    monkeypatch.setattr(forward, name, run)
    assert stats == make_case(model, layerwise=layerwise, batch_tokens=128).run()


def test_other_runtime_errors_are_bugs(
    tiny_models: dict[str, Path], make_case: MakeCase, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        message = "shape mismatch"
        raise RuntimeError(message)

    monkeypatch.setattr("harness.calibrate.measure.run_whole", fail)
    with pytest.raises(RuntimeError, match="shape mismatch"):
        make_case(tiny_models["qwen3"]).run()


def test_bad_data_end_the_run_before_the_model_is_loaded(
    tiny_models: dict[str, Path], make_case: MakeCase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr("harness.calibrate.measure.load_model")
    with pytest.raises(DataError):
        make_case(tiny_models["qwen3"], data="/no/such/file").run()


def test_a_quantized_model_cannot_be_calibrated(
    tiny_models: dict[str, Path], make_case: MakeCase, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(tiny_models["qwen3"], tmp_path / "model"))
    tensors = load_file(folder / "model.safetensors")
    name = "model.layers.0.mlp.up_proj.weight"
    tensors[name] = tensors[name].to(torch.float8_e4m3fn)
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(ModelError, match="quantized already"):
        make_case(folder).run()


@pytest.fixture
def stats(tiny_models: dict[str, Path], make_case: MakeCase) -> CalibrationStats:
    return make_case(tiny_models["mixtral"]).run()


def test_stats_are_read_as_they_were_written(stats: CalibrationStats, tmp_path: Path) -> None:
    path = tmp_path / "calibration.json"
    write_stats(stats, path, {"plan": "key"})
    assert read_stats(path) == stats
    assert json.loads(path.read_bytes())["made_from"] == {"plan": "key"}
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "calibration.json",
        "calibration.safetensors",
    ]


def test_stats_whose_ranges_were_changed_are_refused(
    stats: CalibrationStats, tmp_path: Path
) -> None:
    write_stats(stats, tmp_path / "calibration.json", {"plan": "key"})
    (tmp_path / "calibration.safetensors").write_bytes(b"cut")
    with pytest.raises(RunDirectoryError, match=r"calibration\.safetensors' was changed"):
        read_stats(tmp_path / "calibration.json")


def test_stats_whose_ranges_are_lost_are_refused(stats: CalibrationStats, tmp_path: Path) -> None:
    write_stats(stats, tmp_path / "calibration.json", {"plan": "key"})
    (tmp_path / "calibration.safetensors").unlink()
    with pytest.raises(RunDirectoryError, match=r"calibration\.safetensors' cannot be read"):
        read_stats(tmp_path / "calibration.json")


def test_calibration_takes_its_plan_as_it_is(
    tiny_models: dict[str, Path], make_case: MakeCase
) -> None:
    """Only what is planned is measured."""
    case = make_case(tiny_models["mixtral"], kv_cache=KvFormat.NONE)
    some = tuple(p for p in case.plan.quantized if p.linear.experts is not None)
    plan = dataclasses.replace(case.plan, quantized=some)
    stats = calibrate_room(case.recipe, case.source, case.inventory, plan)
    assert all("experts" in name for name in [*stats.input_amax, *stats.weight_amax])
