"""The `reference` engine: the exported files, computed as vLLM's emulation computes them.

It sees nothing but the folder: weights come from the packed codes and scales, inputs of quantized
layers are rounded on their way into each linear function, keys and values on their way into
attention. Everything between is ordinary arithmetic of one type, the same for a quantized
checkpoint and for the unquantized model it is compared with.

Dequantized NVFP4 weights are rounded to the model's own type (bfloat16) before they are held in
the arithmetic's type, for so does the emulation; FP8 engines multiply the codes themselves, so
FP8 weights are held exactly. Not emulated: the order of sums, bfloat16 between layers, and the
queries that some FP8 attention kernels round too.
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from harness import __version__
from harness.artifacts import Deployment, EngineSpec, Inventory, Linear
from harness.engines import parts_of
from harness.errors import EngineError, ModelError, ReasonCode
from harness.formats import NO_EXPONENT, get_format
from harness.formats.fp8 import requantized
from harness.formats.kv import qdq_kv, qdq_kv_nvfp4
from harness.models import (
    Source,
    TensorReader,
    answering,
    experts_run,
    load_model,
    load_tokenizer,
    mixed_types_run,
    open_source,
    read_inventory,
    stored_dtype,
    tap_attention,
    tap_linears,
)
from harness.serve.computable import Computable, read_computable
from harness.serve.memory import naming_lack_of_memory, num_weights, refuse_if_too_large
from harness.serve.scales import (
    Quantized,
    Scales,
    Site,
    quantized_linears,
    read_kv_scales,
    read_scales,
)

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_log = logging.getLogger("harness.serve")


class Served(NamedTuple):
    """A model that is ready to answer, as long as the context lasts."""

    deployment: Deployment
    model: "PreTrainedModel"
    tokenizer: "PreTrainedTokenizerBase"


@contextmanager
def serve_reference(engine: EngineSpec, directory: Path) -> Iterator[Served]:
    """Load the checkpoint in `directory` and answer with it inside the context.

    Raises:
        ModelError: the folder is no checkpoint.
        EngineError: a scale is missing, files contradict each other, or memory is short.
    """
    source = open_source(str(directory.resolve()))
    declared = read_computable(source)
    inventory = read_inventory(source)
    layers = quantized_linears(source, inventory, declared)
    scales = read_scales(source, layers)
    kv_scales = read_kv_scales(source, inventory, declared)
    tokenizer = _load_tokenizer(source)
    _log.info("serve: %s, %d layers quantized", directory.name, len(layers))
    model = _load(engine, source, inventory, layers, scales)
    with ExitStack() as taps:
        taps.enter_context(experts_run(model, "eager"))
        taps.enter_context(mixed_types_run(model))
        if scales.input_formats:
            taps.enter_context(tap_linears(model, _input_rounding(scales, engine.device)))
        if kv_scales:
            taps.enter_context(tap_attention(model, _kv_rounding(kv_scales, declared.kv)))
        deployment = _describe(engine, source, declared, layers)
        yield Served(deployment, answering(model), tokenizer)


def _load(
    engine: EngineSpec,
    source: Source,
    inventory: Inventory,
    layers: tuple[Quantized, ...],
    scales: Scales,
) -> "PreTrainedModel":
    """Return the model with its dequantized weights, fit for greedy answers."""
    dtype: torch.dtype = getattr(torch, engine.dtype)
    refuse_if_too_large(num_weights(inventory) * dtype.itemsize, engine.device)
    with naming_lack_of_memory(engine.device), TensorReader(source) as reader:
        model = load_model(
            source,
            inventory,
            device=engine.device,
            dtype=dtype,
            matrix=_dequantizer(source, reader, layers, scales),
        )
    # The files' packing is undone: nobody after this may take the model for a packed one.
    vars(model.config).pop("quantization_config", None)
    from transformers import GenerationConfig  # noqa: PLC0415 -- takes seconds

    # Both arms and every engine answer under the suite's rules alone; only the end tokens stay.
    settings = model.generation_config
    ends = settings.eos_token_id if settings is not None else None
    answering(model).generation_config = GenerationConfig(eos_token_id=ends)  # type: ignore[no-untyped-call]  # transformers leaves it untyped
    return model


def _dequantizer(
    source: Source, reader: TensorReader, layers: tuple[Quantized, ...], scales: Scales
) -> Callable[[Linear], Tensor]:
    """Return the function that gives each linear layer's weight [out, in]."""
    quantized = {one.name: one.format for one in layers}
    own_dtype = stored_dtype(source)

    def matrix(linear: Linear) -> Tensor:
        weight_format = quantized.get(linear.name)
        if weight_format is None:
            return reader.matrix(linear.source)
        suffixes = weight_format.required_suffixes(with_input=False)
        tensors = {suffix: reader.tensor(f"{linear.name}.{suffix}") for suffix in suffixes}
        one_scale, merged = weight_format.one_scale, scales.weights.get(linear.name)
        if one_scale == "weight_scale" and merged is not None:
            tensors["weight"] = requantized(tensors, merged)
        for suffix in suffixes:
            if "scale" in suffix:
                _refuse_unusable(f"{linear.name}.{suffix}", tensors[suffix])
        if one_scale is not None and merged is not None:
            tensors[one_scale] = merged
        dtype = own_dtype if weight_format.is_widened_to_own_type else torch.float32
        return weight_format.dequantize_weight(tensors, dtype=dtype)

    return matrix


def _refuse_unusable(name: str, scale: Tensor) -> None:
    """Refuse a block scale that is no positive number; of bytes that are exponents, NaN."""
    value = scale.float()
    is_usable = value < NO_EXPONENT if scale.dtype == torch.uint8 else (value > 0) & ~value.isinf()
    if not is_usable.all():
        message = (
            f"'{name}' holds a block scale that is not positive and finite. Export the checkpoint "
            "again."
        )
        raise EngineError(message, reason=ReasonCode.SCALE_MISSING)


def _input_rounding(
    scales: Scales, device: str
) -> Callable[[str, int | None, Tensor], Tensor | None]:
    formats = {site: get_format(name) for site, name in scales.input_formats.items()}
    on_device = {site: scale.to(device) for site, scale in scales.inputs.items()}

    def round_input(parameter: str, expert: int | None, x: Tensor) -> Tensor | None:
        site = Site(parameter, expert)
        found = formats.get(site)
        return None if found is None else found.qdq_input(x, input_scale=on_device.get(site))

    return round_input


def _kv_rounding(
    scales: Mapping[str, tuple[Tensor, Tensor]], kv: str | None
) -> Callable[[str, Tensor, Tensor], tuple[Tensor, Tensor] | None]:
    rounded = qdq_kv if kv == "fp8" else qdq_kv_nvfp4

    def round_kv(module: str, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor] | None:
        if module not in scales:
            return None
        k_scale, v_scale = scales[module]
        return rounded(k, scale=k_scale), rounded(v, scale=v_scale)

    return round_kv


def _load_tokenizer(source: Source) -> "PreTrainedTokenizerBase":
    try:
        return load_tokenizer(source.path)
    except ModelError as error:
        raise EngineError(str(error)) from error


def _describe(
    engine: EngineSpec, source: Source, declared: Computable, layers: tuple[Quantized, ...]
) -> Deployment:
    """Return what is served, and what of it is really computed."""
    native = f"{engine.dtype}, torch"
    schemes = {
        is_routed: {one.scheme.name for one in layers if one.linear.is_routed is is_routed}
        for is_routed in (False, True)
    }
    emulated = {
        is_routed: f"emulation ({', '.join(parts_of(names))})" if names else native
        for is_routed, names in schemes.items()
    }
    parts = declared.parts()
    return Deployment(
        engine="reference",
        version=f"{__version__} (torch {version('torch')}, transformers {version('transformers')})",
        model=str(source.path),
        checkpoint_digest=source.digest,
        device=_device_name(engine.device),
        dtype=engine.dtype,
        arguments=(f"device={engine.device}", f"dtype={engine.dtype}"),
        kernels={
            "linear": emulated[False],
            "experts": f"{emulated[True]}, one by one",
            "attention": "torch scaled dot product",
            "kv_cache": f"emulation ({declared.kv})" if declared.kv else native,
        },
        exercised=parts if layers else tuple(p for p in parts if p.startswith("kv:")),
        declared=parts,
        log=None,
    )


def _device_name(device: str) -> str:
    if torch.device(device).type != "cuda":
        return device
    major, minor = torch.cuda.get_device_capability(device)
    return f"{torch.cuda.get_device_name(device)} (sm_{major}{minor})"
