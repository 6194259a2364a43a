"""Fill in a recipe: the YAML file, then what was typed, then what follows from the model."""

import dataclasses
import os
import re
from pathlib import Path

from harness import shipped
from harness.artifacts import (
    PLAIN,
    Address,
    Algorithm,
    CalibrationSpec,
    DeploymentsTrial,
    EngineSpec,
    KvFormat,
    MemorySpec,
    MissingEvidence,
    Recipe,
    Suite,
    Trial,
    Wording,
)
from harness.errors import RecipeError, UsageError
from harness.reading import read_yaml_documents, refused_as
from harness.recipe.algorithms import Named, endings, in_order, split
from harness.recipe.names import choose_file
from harness.recipe.peer import convert, is_peer_recipe
from harness.recipe.peer_files import in_library
from harness.recipe.schema import RecipeFile, read_yaml
from harness.recipe.suites import suite_of
from harness.recipe.waivers import load_waivers
from harness.request import Request
from harness.shipped import CANARY

GATE, DEPLOYMENTS = "gate", "deployments"
_NOT_RECORDED = "not recorded"
_NUMERICS = ("deployed", "declared")
_EXPERTS = ("eager", "grouped")
_DECLARED_SUITES = (CANARY, "signoff")
"""Suites that are answered with the arithmetic that the checkpoint declares, if nothing is said."""


_SIZE = re.compile(r"(?P<number>\d+(\.\d+)?)\s*(?P<unit>[KMGT]i?B)", re.IGNORECASE)
_UNITS = {
    f"{letter}{kind}b": base**power
    for power, letter in enumerate("kmgt", start=1)
    for kind, base in (("", 1000), ("i", 1024))
}


def recipe_names() -> list[str]:
    """Return the shipped formats, as --qformat takes them."""
    return sorted(path.stem for path in shipped.recipes().glob("*.yaml"))


def load_recipe(request: Request) -> Recipe:
    """Return the whole recipe for `request`.

    Raises:
        RecipeError: the format is unknown or the recipe's file is malformed.
        SuiteError: the same of the suite.
        UsageError: an option has a value that it cannot have.
    """
    file = _read(request)
    suite = _suite(request, file.suite)
    calibration = _calibration(request, file)
    return Recipe(
        name=file.name,
        model=request.model,
        revision=request.revision,
        rules=file.rules,
        exclude=file.exclude,
        kv_cache=_kv_format(request.kv_cache) if request.kv_cache else file.kv_cache,
        calibration=calibration,
        engine=_engine(request, suite, default=file.engine, arguments=file.engine_args),
        suite=suite,
        device=request.device,
        ranks=_ranks(request, layerwise=calibration.layerwise),
        memory=_memory(request, layerwise=calibration.layerwise),
        skip_verify=request.skip_verify,
        baseline=request.baseline,
        waivers=load_waivers(request.waivers),
        # What is typed is meant to be heeded, so it is said where engines read it.
        wording=Wording.TODAY if request.kv_cache else file.wording,
        matching=file.matching,
        expert_scales=file.expert_scales,
        algorithm=_algorithm(file.algorithm, calibration, request.ranks),
        missing_evidence=load_missing_evidence(request, default=file.missing_evidence),
        end_early=request.end_early,
    )


def load_trial(request: Request, checkpoint: Path) -> Trial:
    """Return what a checkpoint that was made elsewhere is compared with, and how.

    Raises:
        SuiteError: the suite is unknown or its file is malformed.
        UsageError: an option has a value that it cannot have.
    """
    suite = _suite(request, "auto")
    return Trial(
        name=GATE,
        model=request.model,
        revision=request.revision,
        checkpoint=str(checkpoint),
        engine=_engine(request, suite, default="auto", arguments=()),
        suite=suite,
        skip_verify=request.skip_verify,
        waivers=load_waivers(request.waivers),
        missing_evidence=load_missing_evidence(request),
        end_early=request.end_early,
    )


def load_deployments(
    request: Request, suite: Suite, *, candidate: Address, baseline: Address
) -> DeploymentsTrial:
    """Return how two deployments that somebody else runs are compared.

    Raises:
        UsageError: an option has a value that it cannot have.
    """
    if request.budget is not None:
        message = (
            f"--budget {request.budget}: how fast somebody else's servers answer is not known. "
            "Choose a smaller suite."
        )
        raise UsageError(message)
    return DeploymentsTrial(
        name=DEPLOYMENTS,
        model=candidate.model,
        revision=None,
        engine=EngineSpec(
            name=candidate.engine,
            numerics="deployed",
            device=_NOT_RECORDED,
            dtype=_NOT_RECORDED,
            version=candidate.version,
            max_model_len=suite.max_model_len,
        ),
        suite=suite,
        skip_verify=request.skip_verify,
        baseline=str(baseline),
        waivers=load_waivers(request.waivers),
        missing_evidence=load_missing_evidence(request),
        end_early=request.end_early,
        candidate_at=candidate,
        baseline_at=baseline,
    )


def load_engine(request: Request, suite: Suite) -> EngineSpec:
    """Return the engine as it was typed, for a command that serves and judges nothing.

    Raises:
        UsageError: an option has a value that it cannot have.
    """
    return _engine(request, suite, default="auto", arguments=())


def _suite(request: Request, default: str) -> Suite:
    name = request.suite or default
    if name == "auto":
        name = CANARY if request.model == CANARY else "nightly"
    return suite_of(request, name)


def _engine(
    request: Request, suite: Suite, *, default: str, arguments: tuple[str, ...]
) -> EngineSpec:
    if request.numerics not in (None, *_NUMERICS):
        message = f"unknown numerics '{request.numerics}'. Type one of: {', '.join(_NUMERICS)}."
        raise UsageError(message)
    gpus = request.tensor_parallel_size
    _check_least("--tensor-parallel-size", gpus, 1, "a server needs at least one GPU")
    is_declared = request.model == CANARY or suite.name in _DECLARED_SUITES
    return EngineSpec(
        name=request.engine or default,
        numerics=request.numerics or ("declared" if is_declared else "deployed"),
        device=request.device,
        dtype="auto",
        max_model_len=suite.max_model_len,
        arguments=(*arguments, *request.engine_args),
        tensor_parallel_size=gpus,
        place=_place(request, request.engine or default),
        image=request.image,
    )


def _place(request: Request, engine: str) -> str | None:
    """Return the environment that holds the server.

    Raises:
        UsageError: it was named for another engine.
    """
    named = {"sglang": request.sglang, "trtllm": request.trtllm, "vllm": request.vllm}
    for name, path in named.items():
        if path is None or name == engine:
            continue
        if name != "vllm" or engine in named:
            message = f"--{name} {path} is for --engine {name}, and this is '{engine}'."
            raise UsageError(message)
    place = named.get(engine, request.vllm)
    return str(place) if place else None


def _read(request: Request) -> RecipeFile:
    if (request.qformat is None) == (request.recipe is None):
        message = (
            "give either --qformat or --recipe. "
            f"Formats: {', '.join(recipe_names())}; a recipe is the path of a YAML file."
        )
        raise RecipeError(message)
    if request.recipe is None:
        return _shipped(str(request.qformat))
    typed = request.recipe
    shipped_there = None if os.path.lexists(typed) else in_library(typed)
    path = choose_file(str((shipped_there or typed).absolute()), Path(), "recipe", RecipeError)
    return _read_file(path)


def _shipped(qformat: str) -> RecipeFile:
    """Return the recipe that a format's name means, with the algorithm that the name ends with."""
    is_path = qformat.endswith((".yaml", ".yml"))
    named = Named(qformat, PLAIN) if is_path else split(qformat)
    if named.algorithm != PLAIN and named.recipe not in recipe_names():
        other = in_order(qformat)
        hint = f"Did you mean '{other}'? " if split(other).recipe in recipe_names() else ""
        message = (
            f"unknown format '{qformat}'. {hint}Formats that make {Algorithm.FORMAT} may end with "
            f"{endings()}; without that they are: "
            f"{', '.join(recipe_names())}."
        )
        raise RecipeError(message)
    file = _read_file(choose_file(named.recipe, shipped.recipes(), "format", RecipeError))
    if named.algorithm == PLAIN:
        return file
    return file.model_copy(update={"name": qformat, "algorithm": named.algorithm})


def _read_file(path: Path) -> RecipeFile:
    with refused_as(RecipeError, "Mend the file."):
        documents = read_yaml_documents(path)
    if is_peer_recipe(documents):
        return convert(path, documents)
    return _beside(read_yaml(path, RecipeFile, RecipeError), path.parent)


def _beside(file: RecipeFile, folder: Path) -> RecipeFile:
    """Return a recipe whose suite and calibration texts are found where it lies.

    What is not there is looked for from the current folder, or is the name of a shipped one.
    """
    spec = file.calibration
    texts, suite = folder / spec.data, folder / file.suite
    if spec.data.endswith(".jsonl") and texts.is_file():
        spec = dataclasses.replace(spec, data=str(texts))
    named = str(suite) if file.suite.endswith((".yaml", ".yml")) and suite.is_file() else file.suite
    return file.model_copy(update={"calibration": spec, "suite": named})


def _calibration(request: Request, file: RecipeFile) -> CalibrationSpec:
    spec = file.calibration
    data = request.calib_data or spec.data
    if data == "auto":
        data = CANARY if request.model == CANARY else "default"
    size = spec.size if request.calib_size is None else request.calib_size
    seq = spec.seq if request.calib_seq is None else request.calib_seq
    _check_least("--calib-size", size, 1, "at least one sample is needed")
    # One token has no next token; the model has nothing to do.
    _check_least("--calib-seq", seq, 2, "samples need at least two tokens")
    layerwise = spec.layerwise if request.layerwise is None else request.layerwise
    experts = request.experts or spec.experts
    if experts not in _EXPERTS:
        message = f"--experts '{experts}': experts run eager or grouped. Type --experts eager."
        raise UsageError(message)
    return dataclasses.replace(
        spec, data=data, size=size, seq=seq, layerwise=layerwise, experts=experts
    )


def _algorithm(algorithm: Algorithm, calibration: CalibrationSpec, ranks: int) -> Algorithm:
    """Return the recipe's algorithm, if it can be run as was asked."""
    if algorithm.needs_inputs and not calibration.layerwise:
        message = (
            f"the recipe's algorithm ({algorithm}) looks at each layer's inputs while the layer is "
            "in memory, and the whole model was asked for. Type --layerwise."
        )
        raise UsageError(message)
    if algorithm.needs_inputs and ranks > 1:
        message = (
            f"--ranks {ranks}: the recipe's algorithm ({algorithm}) needs the inputs of all "
            "batches in one process. Type --ranks 1."
        )
        raise UsageError(message)
    return algorithm


def load_missing_evidence(
    request: Request, *, default: MissingEvidence = MissingEvidence.INCONCLUSIVE
) -> MissingEvidence:
    """Return what may be said where it is not known what an engine loaded and computes.

    Raises:
        UsageError: what was typed is no such policy.
    """
    typed = request.missing_evidence
    if typed is None:
        return default
    try:
        return MissingEvidence(typed)
    except ValueError:
        message = (
            f"unknown policy '{typed}' for missing evidence. Type one of: "
            f"{', '.join(MissingEvidence)}."
        )
        raise UsageError(message) from None


def _check_least(option: str, value: int, least: int, why: str) -> None:
    if value < least:
        message = f"{option} {value}: {why}. Type {option} {least} or more."
        raise UsageError(message)


def _bytes(option: str, text: str | None) -> int | None:
    """Return a size such as `24GiB`, `500MB` or `1.5 TiB` in bytes."""
    if text is None:
        return None
    found = _SIZE.fullmatch(text.strip())
    if found is None or not (size := float(found["number"]) * _UNITS[found["unit"].lower()]):
        message = f"{option} '{text}' is no size. Type a number and a unit, such as 24GiB or 500MB."
        raise UsageError(message)
    return int(size)


def _ranks(request: Request, *, layerwise: bool) -> int:
    _check_least("--ranks", request.ranks, 1, "one process is the least")
    if request.ranks > 1 and not layerwise:
        message = (
            f"--ranks {request.ranks}: several processes share a model that is run layer by layer. "
            "Type --layerwise."
        )
        raise UsageError(message)
    return request.ranks


def _memory(request: Request, *, layerwise: bool) -> MemorySpec:
    if request.host_memory is not None and not layerwise:
        message = (
            f"--host-memory {request.host_memory}: the model is in memory as a whole, of which no "
            "part can be left out. Leave out --whole, or the bound."
        )
        raise UsageError(message)
    return MemorySpec(
        gpu_bytes=_bytes("--gpu-memory", request.gpu_memory),
        host_bytes=_bytes("--host-memory", request.host_memory),
    )


def _kv_format(text: str) -> KvFormat:
    try:
        return KvFormat(text)
    except ValueError:
        known = ", ".join(KvFormat)
        message = f"unknown KV cache format '{text}'. Type --kv-cache-qformat with one of: {known}."
        raise UsageError(message) from None
