"""What the streamed pass measures of a variant is what the whole model does with it rounded."""

import logging
from collections.abc import Callable, Collection
from pathlib import Path

import pytest
import torch
from torch import Tensor

from harness.artifacts import LEFT, CalibrationStats
from harness.calibrate.forward import LayerwiseRun
from harness.calibrate.observer import Observer
from harness.errors import ModelError, PrerequisiteError, StageError
from harness.localizing.case import Made
from harness.localizing.in_memory import rounded, running, stored_of
from harness.models import TensorReader, answering, tap_linears
from harness.recipe import plan
from harness.tuning.passing import divergences
from harness.tuning.rules import recipe_for
from harness.tuning.streams import Demand, Streams
from harness.tuning.work import Work
from tests.sharing import write_gemma4
from tests.tuning.conftest import Prepare

MODELS = ("qwen3_5_moe", "qwen3_moe", "mixtral", "qwen3")


def whole_model(work: Work, variant: dict[str, str]) -> float:
    """Run the model as a whole, in another way, with these units rounded and no others."""
    job = work.job
    choice = {unit.name: variant.get(unit.name, LEFT) for unit in work.space.units}
    recipe = recipe_for(work.space, choice, job.inventory)
    made = Made(
        source=job.source,
        inventory=job.inventory,
        recipe=recipe,
        plan=plan(recipe, job.inventory),
    )
    batches_BT = work.texts.batches(work.texts.sensing)
    amax: dict[str, float] = {}
    quantizers = {
        (one.parameter.tensor, one.parameter.expert): one.input_quantizer
        for one in job.inventory.linears
    }

    def look(name: str, expert: int | None, x: Tensor) -> None:
        quantizer = quantizers.get((name, expert))
        if quantizer is not None and x.numel():
            amax[quantizer] = max(amax.get(quantizer, 0.0), float(x.abs().max()))

    with running(made, "cpu") as model, tap_linears(model, look), torch.inference_mode():
        wanted = [answering(model)(input_ids=x).logits.log_softmax(-1) for x in batches_BT]
    weights = {one.linear.name: weight_of(work, one.linear.name) for one in made.plan.quantized}
    stats = CalibrationStats(
        weight_amax=weights, input_amax=amax, coverage=(), num_samples=1, num_tokens=1
    )
    with rounded(made, stored_of(made, stats, "cpu"), "cpu") as model, torch.inference_mode():
        found = [answering(model)(input_ids=x).logits.log_softmax(-1) for x in batches_BT]
    pairs = zip(wanted, found, strict=True)
    total = sum(float((a.exp() * (a - b)).sum()) for a, b in pairs)
    return total / sum(x.numel() for x in batches_BT)


def weight_of(work: Work, name: str) -> float:
    (linear,) = (one for one in work.job.inventory.linears if one.name == name)
    with TensorReader(work.job.source) as reader:
        return float(reader.matrix(linear.source).abs().max())


@pytest.mark.parametrize("name", MODELS)
def test_a_variant_costs_what_it_costs_in_the_whole_model(
    name: str, tiny_models: dict[str, Path], prepare: Prepare
) -> None:
    work = prepare(tiny_models[name])
    first, last = work.space.units[0], work.space.units[-1]
    variants = [{first.name: "nvfp4"}, {last.name: "fp8"}, {first.name: "fp8", last.name: "nvfp4"}]
    batches_BT = work.texts.batches(work.texts.sensing)
    found, floor = divergences(work.tuned, work.space, batches_BT, variants)
    assert floor < 1e-6
    for variant, one in zip(variants, found, strict=True):
        assert one.kld == pytest.approx(whole_model(work, variant), rel=1e-2)


def test_what_follows_quantized_layers_is_measured_as_gptq_makes_it(
    tiny_qwen3: Path, prepare: Prepare
) -> None:
    found = {}
    for algorithm in ("gptq", "gptaq"):
        work = prepare(tiny_qwen3, algorithm=algorithm)
        batches_BT = work.texts.batches(work.texts.sensing)
        variant = {work.space.units[0].name: "nvfp4"}
        found[algorithm], _ = divergences(work.tuned, work.space, batches_BT, [variant])
        assert str(work.space.recipe.algorithm).endswith(f"rounded by {algorithm}")
    assert found["gptaq"] == found["gptq"]


@pytest.fixture
def gemma4(tiny_qwen3: Path, tmp_path: Path) -> Callable[[int], Path]:
    """Return a model in which the last layers may read keys and values of layers before them."""

    def make(num_that_share: int) -> Path:
        return write_gemma4(tmp_path / "gemma4", num_that_share, tokenizer=tiny_qwen3)

    return make


def test_layers_that_read_each_others_keys_and_values_are_refused(
    gemma4: Callable[[int], Path], prepare: Prepare
) -> None:
    work = prepare(gemma4(2))
    with pytest.raises(ModelError, match="hand on 'shared_kv_states' beside the hidden states"):
        divergences(work.tuned, work.space, work.texts.batches(work.texts.sensing), [])


def test_where_none_is_read_a_variant_costs_what_it_does_by_itself(
    gemma4: Callable[[int], Path], prepare: Prepare
) -> None:
    work = prepare(gemma4(0))
    first, batches_BT = {work.space.units[0].name: "nvfp4"}, work.texts.batches(work.texts.sensing)
    others = [{unit.name: "nvfp4"} for unit in work.space.units]
    (alone,), _ = divergences(work.tuned, work.space, batches_BT, [first])
    beside, _ = divergences(work.tuned, work.space, batches_BT, [*others, first])
    assert beside[-1] == alone


def test_hidden_states_of_several_vectors_a_token_are_refused_before_a_layer_runs(
    tiny_qwen3: Path, prepare: Prepare, monkeypatch: pytest.MonkeyPatch
) -> None:
    work, ran = prepare(tiny_qwen3), []
    monkeypatch.setattr(
        LayerwiseRun, "inputs", lambda self: [torch.stack([x] * 4) for x in self._activations]
    )
    monkeypatch.setattr(LayerwiseRun, "run", lambda *_: ran.append(1))
    with pytest.raises(ModelError, match=r"not 64 numbers a token\. Such a model cannot be tuned"):
        divergences(work.tuned, work.space, work.texts.batches(work.texts.sensing), [])
    assert ran == []


def test_a_unit_of_whose_input_no_scale_can_be_made_is_no_choice(
    tiny_qwen3: Path, prepare: Prepare, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = prepare(tiny_qwen3)
    first, second = work.space.units[:2]
    largest = Observer.largest

    def zero(self: Observer, names: Collection[str]) -> dict[str, float]:
        dead = {one.input_quantizer for one in first.linears}
        return {name: amax * (name not in dead) for name, amax in largest(self, names).items()}

    monkeypatch.setattr(Observer, "largest", zero)
    variants = [{first.name: "nvfp4"}, {second.name: "nvfp4"}]
    batches_BT = work.texts.batches(work.texts.sensing)
    (of_first, of_second), _ = divergences(work.tuned, work.space, batches_BT, variants)
    assert of_first.kld == float("inf")
    assert 0 < of_second.kld < 1


def test_streams_in_a_file_hold_what_those_in_memory_do(tmp_path: Path) -> None:
    shapes = [(2, 5, 8), (1, 3, 8)]
    demand = Demand(num_streams=3, num_tokens=13, width=8, dtype=torch.float32)
    count = demand.num_bytes // 4
    file = torch.from_file(str(tmp_path / "s"), shared=True, size=count, dtype=torch.float32)
    streams = Streams(demand, shapes, file)
    values = {(s, b): torch.randn(shape) for s in range(3) for b, shape in enumerate(shapes)}
    for (stream, batch), value in values.items():
        streams.put(stream, batch, value)
    assert all(torch.equal(streams.get(*where), value) for where, value in values.items())


def test_what_has_no_room_in_memory_goes_to_a_file_and_is_said(
    tiny_qwen3: Path,
    prepare: Prepare,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    caplog.set_level(logging.INFO)
    work = prepare(tiny_qwen3)
    work.folder.mkdir()
    batches_BT = work.texts.batches(work.texts.sensing)
    variants = [{work.space.units[0].name: "nvfp4"}]
    in_memory = divergences(work.tuned, work.space, batches_BT, variants)
    monkeypatch.setattr("harness.tuning.streams._SHARE", 1e-12)
    assert divergences(work.tuned, work.space, batches_BT, variants) == in_memory
    assert "have no room in memory: they go to" in caplog.text
    assert list(work.folder.iterdir()) == []


def test_what_has_no_room_anywhere_is_refused_with_what_has(
    tiny_qwen3: Path, prepare: Prepare, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.tuning.streams._SHARE", 1e-12)
    monkeypatch.setattr("harness.tuning.streams._DISK_SHARE", 0.0)
    work = prepare(tiny_qwen3)
    with pytest.raises(PrerequisiteError, match=r"Type --tokens \d+ or fewer"):
        divergences(work.tuned, work.space, work.texts.batches(work.texts.sensing), [])


def test_a_model_whose_layers_hand_on_more_than_hidden_states_is_refused(
    tiny_qwen3: Path, prepare: Prepare, monkeypatch: pytest.MonkeyPatch
) -> None:
    work, run_on = prepare(tiny_qwen3), LayerwiseRun.run_on

    def other(*arguments: object) -> Tensor:
        return run_on(*arguments) * 1.5  # type: ignore[arg-type]  # as they are

    monkeypatch.setattr(LayerwiseRun, "run_on", other)
    with pytest.raises(StageError, match="in which nothing is rounded parts from itself"):
        divergences(work.tuned, work.space, work.texts.batches(work.texts.sensing), [])
