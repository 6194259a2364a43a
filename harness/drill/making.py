"""Faults while a checkpoint is made: in the recipe's matching, in calibration, in the export.

Each is a context in which one function of harness is exchanged for what it was in the incident.
Exchanging a module's attribute is a test's trick; here it is the purpose, and it happens nowhere
else: no stage can be told to be wrong.
"""

import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from harness import making, pipeline, shipped
from harness.artifacts import CalibrationStats, Linear, QuantizedTensor, QuantPlan
from harness.calibrate import forward
from harness.calibrate.observer import Observer
from harness.drill.fault import Kind, RunFault
from harness.export import read_back
from harness.models import ResidentLayer, Source
from harness.quantize import quantize
from harness.recipe import rules

_MODELOPT = "https://github.com/NVIDIA/Model-Optimizer/"
_SEED = _MODELOPT + "pull/1340"
_SAMPLES = 64
_ONE_TOKEN = 101
_FLIPPED_BIT = 0x10


@contextmanager
def exchanged(place: object, name: str, other: object) -> Iterator[None]:
    """Let the attribute `name` of a module or a class be `other` inside the context."""
    before = vars(place)[name]
    setattr(place, name, other)
    try:
        yield
    finally:
        setattr(place, name, before)


@contextmanager
def _with_experts_unseen() -> Iterator[None]:
    unseen = exchanged(Observer, "see_grouped", lambda *_: None)
    with exchanged(forward, "experts_run", lambda *_: nullcontext()), unseen:
        yield


def _with_list_names_alone() -> AbstractContextManager[None]:
    def names_of(quantizer: str, linear: Linear, **options: object) -> tuple[str, ...]:
        del linear, options
        return (quantizer,)

    return exchanged(rules, "names_of", names_of)


def _with_experts_skipped() -> AbstractContextManager[None]:
    def skip(
        source: Source,
        plan: QuantPlan,
        stats: CalibrationStats,
        **options: Any,  # noqa: ANN401 - passed on
    ) -> Iterator[QuantizedTensor]:
        kept = tuple(planned for planned in plan.quantized if not planned.linear.is_routed)
        return quantize(source, dataclasses.replace(plan, quantized=kept), stats, **options)

    return exchanged(making, "quantize", skip)


def _with_no_layers_found() -> AbstractContextManager[None]:
    def none(run: forward.LayerwiseRun) -> Iterator[ResidentLayer]:
        del run
        yield from ()

    return exchanged(forward.LayerwiseRun, "layers", none)


def _without_attention_taps() -> AbstractContextManager[None]:
    return exchanged(forward, "tap_attention", lambda model, on_kv: nullcontext((model, on_kv)))


def _with_down_proj_unseen() -> AbstractContextManager[None]:
    see = Observer.see_grouped

    def see_others(self: Observer, parameter: str, ends_E: Tensor, input_NI: Tensor) -> None:
        if not parameter.endswith("experts.down_proj"):
            see(self, parameter, ends_E, input_NI)

    return exchanged(Observer, "see_grouped", see_others)


def _with_zeros_seen() -> AbstractContextManager[None]:
    see = Observer.see_grouped

    def see_zeros(self: Observer, parameter: str, ends_E: Tensor, input_NI: Tensor) -> None:
        is_hit = parameter.endswith("layers.1.mlp.experts.down_proj")
        see(self, parameter, ends_E, torch.zeros_like(input_NI) if is_hit else input_NI)

    return exchanged(Observer, "see_grouped", see_zeros)


def _with_ranges(
    *, inputs: float = 1.0, weights: float = 1.0, of: str = ""
) -> Callable[[], AbstractContextManager[None]]:
    """Multiply what calibration measured: every range, or those whose name holds `of`."""

    def scaled(ranges: Mapping[str, float], factor: float) -> dict[str, float]:
        return {name: v * factor if of in name else v for name, v in ranges.items()}

    def calibrate(*arguments: Any, **options: Any) -> CalibrationStats:  # noqa: ANN401 - passed on
        stats = making.calibrate_and_write(*arguments, **options)
        return dataclasses.replace(
            stats,
            input_amax=scaled(stats.input_amax, inputs),
            weight_amax=scaled(stats.weight_amax, weights),
        )

    return lambda: exchanged(pipeline, "calibrate_and_write", calibrate)


def _with_a_bad_disk() -> AbstractContextManager[None]:
    """Change one bit of each file of weights between writing it and reading it back."""
    read = read_back.read_file

    def spoil_and_read(path: Path) -> read_back.FoundFile:
        content = bytearray(path.read_bytes())
        content[-1] ^= _FLIPPED_BIT
        path.write_bytes(content)
        return read(path)

    return exchanged(read_back, "read_file", spoil_and_read)


def _samples(*texts: object) -> Callable[[Path], Mapping[str, object]]:
    """Return what calibrates with `texts` alone."""

    def options(folder: Path) -> Mapping[str, object]:
        path = folder / "calibration.jsonl"
        path.write_text("".join(json.dumps(text) + "\n" for text in texts), encoding="utf-8")
        return {"calib_data": str(path)}

    return options


def _layerwise(folder: Path) -> Mapping[str, object]:
    del folder
    return {"layerwise": True}


def _whole(folder: Path) -> Mapping[str, object]:
    """Let what calibration hands over be all that the export quantizes with."""
    del folder
    return {"layerwise": False}


def _rules(weights: str, inputs: str) -> Callable[[Path], Mapping[str, object]]:
    """Return what quantizes with two rules of its own."""

    def options(folder: Path) -> Mapping[str, object]:
        recipe = yaml.safe_load((shipped.recipes() / "nvfp4.yaml").read_text(encoding="utf-8"))
        recipe["rules"] = [{"quantizer": name, "format": "nvfp4"} for name in (weights, inputs)]
        path = folder / "recipe.yaml"
        path.write_text(yaml.safe_dump(recipe), encoding="utf-8")
        return {"recipe": path, "qformat": None}

    return options


SEED_FAULTS = (
    RunFault(
        name="eager-experts-off",
        incident=_SEED,
        what="calibration runs the experts through the fused kernel, past its own eyes",
        kind=Kind.CALIBRATION,
        during=_with_experts_unseen,
        format="nvfp4_experts_only",
    ),
    RunFault(
        name="quantizer-lists-not-matched",
        incident=_SEED,
        what="rules are tried on names such as gate_up_proj_weight_quantizers.17 and on no other",
        kind=Kind.RECIPE,
        during=_with_list_names_alone,
        format="nvfp4_experts_only",
    ),
    RunFault(
        name="experts-skipped-by-export",
        incident=_SEED,
        what="the export asks for a module's format before it asks whether it is fused experts",
        kind=Kind.EXPORT,
        during=_with_experts_skipped,
        options=_whole,
    ),
    RunFault(
        name="nested-layers-not-found",
        incident=_SEED,
        what="layerwise calibration finds no decoder layers in a nested model and walks over none",
        kind=Kind.CALIBRATION,
        during=_with_no_layers_found,
        options=_layerwise,
    ),
)

FAULTS = (
    RunFault(
        name="rule-matches-nothing",
        incident=_MODELOPT + "issues/1255",
        what="a rule is written for experts of another model and matches no quantizer of this one",
        kind=Kind.RECIPE,
        options=_rules("*block_sparse_moe*weight_quantizer", "*block_sparse_moe*input_quantizer"),
    ),
    RunFault(
        name="rule-matches-some-experts",
        incident=_MODELOPT + "issues/1173",
        what="a rule with an index reaches experts 10 to 15 and not the others",
        kind=Kind.RECIPE,
        options=_rules("*experts.1?.*weight_quantizer", "*experts*input_quantizer"),
    ),
    RunFault(
        name="calibration-data-empty",
        incident=_MODELOPT + "pull/1382",
        what="the calibration file has no sample, and the loop over it runs zero times",
        kind=Kind.CALIBRATION,
        options=_samples(),
    ),
    RunFault(
        name="calibration-of-one-token",
        incident=_MODELOPT + "issues/766",
        what="every calibration sample is one token over and over",
        kind=Kind.CALIBRATION,
        options=_samples(*[{"input_ids": [_ONE_TOKEN] * 32}] * _SAMPLES),
    ),
    RunFault(
        name="down-proj-not-observed",
        incident=_MODELOPT + "pull/2339",
        what="calibration never sees the input of the experts' down_proj",
        kind=Kind.CALIBRATION,
        during=_with_down_proj_unseen,
    ),
    RunFault(
        name="keys-and-values-not-observed",
        incident="https://github.com/vllm-project/vllm/issues/54623",
        what="calibration never sees keys and values, whose scales are wanted",
        kind=Kind.CALIBRATION,
        during=_without_attention_taps,
        format="nvfp4+kv-fp8",
    ),
    RunFault(
        name="range-zero",
        incident=_MODELOPT + "issues/766",
        what="the experts of one layer saw nothing but zeros in down_proj",
        kind=Kind.CALIBRATION,
        during=_with_zeros_seen,
    ),
    RunFault(
        name="input-ranges-too-large",
        incident="https://github.com/vllm-project/llm-compressor/issues/1123",
        what="every input range is 10,000 times too large: small activations round to zero",
        kind=Kind.CALIBRATION,
        during=_with_ranges(inputs=10_000.0),
    ),
    RunFault(
        name="input-ranges-too-small",
        incident="https://github.com/vllm-project/llm-compressor/issues/1600",
        what="every input range is 100 times too small: plausible files, cut-off activations",
        kind=Kind.CALIBRATION,
        during=_with_ranges(inputs=0.01),
    ),
    RunFault(
        name="weight-ranges-too-small",
        incident="https://github.com/vllm-project/llm-compressor/issues/1600",
        what="the experts' weight ranges are 8 times too small: large weights are cut off",
        kind=Kind.CALIBRATION,
        during=_with_ranges(weights=0.125, of=".experts."),
        options=_whole,
    ),
    RunFault(
        name="disk-changes-a-bit",
        incident=_MODELOPT + "pull/2276",
        what="one bit of the weights changes between writing and reading",
        kind=Kind.EXPORT,
        during=_with_a_bad_disk,
    ),
)
