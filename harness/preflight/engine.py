"""Which engine serves: what was typed, or for `auto` what the model and the machine ask for."""

import dataclasses

import psutil
import torch

from harness import score
from harness.artifacts import MIXED, EngineSpec, KvFormat, QuantPlan, Suite
from harness.cores import num_cores
from harness.engines import Demands, is_attention, read_demands
from harness.errors import PrerequisiteError, ReasonCode, SuiteError, UsageError
from harness.formats import get_format, scheme_of
from harness.models import Source
from harness.serve import check_served, find_vllm, reads_prompts, resolve_engine
from harness.shipped import CANARY

GIB = 1 << 30
REFERENCE_LIMIT_BYTES = GIB
"""Larger models are too slow for the in-process engine to be chosen by itself."""
_DTYPES = {"reference": "float32"}
"""Of the arithmetic between quantized layers; servers compute in bfloat16."""


def resolve_device(device: str, *, ranks: int = 1) -> str:
    """Return the torch device that `device` means; `auto` is a GPU where there is one.

    Several ranks take a GPU each.

    Raises:
        UsageError: there is no such device.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device.split(":")[0] not in ("cpu", "cuda"):
        message = f"unknown device '{device}'. Type --device cpu or --device cuda."
        raise UsageError(message)
    if device.startswith("cuda") and not torch.cuda.is_available():
        message = f"--device {device}: torch {torch.__version__} finds no GPU. Type --device cpu."
        raise PrerequisiteError(message)
    if device == "cpu" and ranks > 1 and ranks > (cores := num_cores()):
        message = (
            f"--ranks {ranks} --device cpu: each takes a core of its own, and there are {cores}. "
            f"Type at most --ranks {cores}."
        )
        raise PrerequisiteError(message)
    if device.startswith("cuda") and ranks > 1:
        found = torch.cuda.device_count()
        if device != "cuda" or found < ranks:
            message = (
                f"--ranks {ranks} --device {device}: each takes a GPU of its own, and there are "
                f"{found}. Type --device cuda and at most --ranks {found}."
            )
            raise PrerequisiteError(message)
    return device


def choose_engine(engine: EngineSpec, source: Source) -> EngineSpec:
    """Return the engine with everything filled in that the machine decides.

    `auto` is the reference engine for the canary, vLLM where it is found, and else the reference
    engine for models of the canary's size.

    Raises:
        PrerequisiteError: this machine cannot run it, with what to do.
    """
    num_bytes = sum(header.num_bytes for header in source.tensors.values())
    if engine.name == "auto":
        engine = dataclasses.replace(engine, name=_automatic(engine, source, num_bytes))
    if engine.dtype == "auto":
        engine = dataclasses.replace(engine, dtype=_DTYPES.get(engine.name, "bfloat16"))
    engine = resolve_engine(engine)
    needed, free = 2 * num_bytes, psutil.virtual_memory().available
    if engine.name == "reference" and engine.device == "cpu" and needed > free:
        message = (
            f"the reference engine needs {needed / GIB:.1f} GiB of memory for '{source.name}' in "
            f"{engine.dtype}, {free / GIB:.1f} GiB are free. Use a machine with more memory."
        )
        raise PrerequisiteError(message)
    return engine


def check_answerable(engine: EngineSpec, suite: Suite) -> None:
    """Refuse a suite with tasks that the engine cannot answer, before anything is calibrated.

    Raises:
        SuiteError: it has, with their names.
    """
    chosen = () if reads_prompts(engine) else score.tasks_of_likelihoods(suite)
    if chosen:
        message = (
            f"--engine {engine.name} gives no log probabilities of a given text, and the suite "
            f"'{suite.name}' asks for them in {', '.join(chosen)}. Choose a suite whose tasks are "
            "generated, or another engine."
        )
        raise SuiteError(message)


def engine_for(engine: EngineSpec, source: Source) -> EngineSpec:
    """Return the engine that serves a model or checkpoint as it lies there, all of it filled in.

    Raises:
        UsageError: this machine has no such device, or cannot run the engine.
        PrerequisiteError: the engine cannot load the files.
    """
    device = resolve_device(engine.device)
    engine = choose_engine(dataclasses.replace(engine, device=device), source)
    check_served(engine, read_demands(source))
    return engine


def _automatic(engine: EngineSpec, source: Source, num_bytes: int) -> str:
    if engine.image:
        return "docker"
    if engine.place or (source.name != CANARY and find_vllm()):
        return "vllm"
    if num_bytes <= REFERENCE_LIMIT_BYTES:
        return "reference"
    message = (
        f"'{source.name}' holds {num_bytes / GIB:.1f} GiB, too much for the reference engine to be "
        "chosen by itself, and no vLLM was found. Run 'scripts/setup-vllm cuda' (or cpu), or give "
        "--vllm with the folder of an environment that has it. 'harness quantize' writes and "
        "verifies the checkpoint without serving it."
    )
    raise PrerequisiteError(message)


def check_widths(engine: EngineSpec, plan: QuantPlan) -> None:
    """Refuse layers that are too narrow for the blocks that an engine's kernels have.

    Raises:
        PrerequisiteError: with the reason `unsupported-format`.
    """
    if engine.name == "reference":
        return
    for one in plan.quantized:
        multiple = get_format(one.weight_format).served_multiple
        widths = one.linear.shape if one.linear.is_routed else one.linear.shape[1:]
        if any(width % multiple for width in widths):
            message = (
                f"vLLM does not load '{one.linear.name}' {list(one.linear.shape)} in "
                f"{one.weight_format}, whose blocks are {multiple} wide. Leave it out in a recipe "
                "of your own, or choose another format."
            )
            raise PrerequisiteError(message, reason=ReasonCode.UNSUPPORTED_FORMAT)


def demands_of(plan: QuantPlan) -> Demands:
    """Return what serving the checkpoint of `plan` asks of an engine."""
    schemes: dict[bool, set[str]] = {True: set(), False: set()}
    for one in plan.quantized:
        schemes[one.linear.is_routed].add(scheme_of(one.weight_format, one.input_format))
    attention = {
        scheme_of(one.weight_format, one.input_format)
        for one in plan.quantized
        if is_attention(one.linear.name)
    }
    algorithm = KvFormat(plan.kv_cache).algorithm
    return Demands(
        linears=frozenset(schemes[False]),
        experts=frozenset(schemes[True]),
        attention=frozenset(attention),
        kv_fp8=plan.declares_kv and algorithm == "FP8",
        kv_nvfp4=plan.declares_kv and algorithm == "NVFP4",
        kv_calibrated=plan.declares_kv and KvFormat(plan.kv_cache).has_scales,
        names_layers=plan.scheme == MIXED,
    )
