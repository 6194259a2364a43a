"""The last two hops: a server on the checkpoint's files, emulating what they declare, and deployed.

A server is asked for nothing but the log probabilities of the texts. Kernels that leave a part of
the declared arithmetic out, as weight-only ones do, are held against the model in memory that
leaves it out too: what they do not compute is known, and no fault of theirs.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from harness.artifacts import EngineSpec, Probe, Severity
from harness.errors import HarnessError, PrerequisiteError, ReasonCode
from harness.localizing.case import Case, Made
from harness.localizing.hops import (
    DEPLOYED,
    EMULATED,
    Chain,
    Step,
    Texts,
    read_quantized,
)
from harness.localizing.in_memory import Arithmetic
from harness.localizing.reading import Read
from harness.preflight.engine import demands_of
from harness.quantize import Stored
from harness.score.probing import probe
from harness.serve import can_emulate, has_emulation, resolve_engine, serve

_REFERENCE = "reference"
_OF_WHAT_IS_LOADED = frozenset(
    {
        ReasonCode.INTEGRITY_FAILED,
        ReasonCode.LOAD_MISMATCH,
        ReasonCode.SCALE_MISMATCH,
        ReasonCode.SCALE_MISSING,
    }
)


class Asked(NamedTuple):
    """What a server is asked, and what its answers are held against."""

    case: Case
    texts: Texts
    engine: EngineSpec
    records: Path
    """Where its log goes."""
    made: Made | None
    stored: Stored | None
    """What the checkpoint should store; None where nothing says it."""


def engine_of(case: Case, vllm: Path | None) -> EngineSpec:
    """Return the run's engine, or the vLLM that was named.

    Raises:
        PrerequisiteError: there is none, or this machine cannot run it.
    """
    engine = case.trial.engine
    if engine.name == _REFERENCE and vllm is None:
        message = "the run's engine is the reference engine. --vllm PATH asks a server too."
        raise PrerequisiteError(message)
    if engine.name == _REFERENCE:
        engine = EngineSpec(
            name="vllm",
            numerics="declared",
            device=case.device,
            dtype="bfloat16",
            max_model_len=case.trial.suite.max_model_len,
        )
    if vllm is not None:
        engine = dataclasses.replace(engine, place=str(vllm), version=None)
    return resolve_engine(engine)


def add_servers(chain: Chain, asked: Asked) -> None:
    """Add both hops."""
    engine, made = asked.engine, asked.made
    if not can_emulate(engine):
        chain.skip(EMULATED, f"{engine.name} has no emulation")
    else:
        _add(chain, EMULATED, asked, "declared")
    if made is not None and chain.is_read and not has_emulation(engine, demands_of(made.plan)):
        chain.repeat(DEPLOYED, "this server computes what is declared, with the same arguments")
    else:
        _add(chain, DEPLOYED, asked, "deployed")


def _add(chain: Chain, step: Step, asked: Asked, numerics: str) -> None:
    engine = dataclasses.replace(asked.engine, numerics=numerics)
    folder = asked.case.folder
    if folder is None:
        chain.skip(step, "the run has no checkpoint")
        return
    prompts = dataclasses.replace(asked.case.prompts, asks=())
    records = asked.records / step.name
    records.mkdir(parents=True, exist_ok=True)
    try:
        with serve(engine, folder, records=records) as served:
            found = probe(served, prompts, arm="candidate")
    except HarnessError as error:
        # A server that does not start for another reason says nothing of what it would load.
        end = chain.refused if error.reason in _OF_WHAT_IS_LOADED else chain.skip
        end(step, str(error))
        return
    errors = [one for one in found.deployment.findings if one.severity is Severity.ERROR]
    logprobs = _logprobs(found, asked.texts)
    if errors:
        chain.refused(step, f"{errors[0].id}: {errors[0].message}")
    elif not logprobs:
        chain.skip(step, "the server gave no log probabilities of these texts in these tokens")
    else:
        beside = _without_hidden(found.deployment.exercised, asked)
        note = f"computes {found.deployment.computed}"
        if beside is not None:
            note += "; held against the same in memory, without what these kernels leave out"
        chain.add(step, Read(logprobs, {}, {}), beside=beside, note=note)


def _logprobs(found: Probe, texts: Texts) -> dict[str, tuple[float, ...]]:
    """Return what was read of the texts that the server saw in the same tokens."""
    return {
        one.passage: tuple(float("nan") if value is None else value for value in one.logprobs)
        for one in found.readings
        if not one.error and one.tokens == tuple(texts.get(one.passage, ()))
    }


def _without_hidden(exercised: Sequence[str], asked: Asked) -> Read | None:
    """Read in memory what kernels compute that leave inputs, keys or values as they are."""
    if asked.made is None or asked.stored is None:
        return None
    plan = asked.made.plan
    how = Arithmetic(
        inputs=any(part.startswith("inputs:") for part in exercised),
        kv=any(part.startswith("kv:") for part in exercised),
    )
    rounds_inputs = any(one.input_format is not None for one in plan.quantized)
    if how.inputs >= rounds_inputs and how.kv >= plan.declares_kv:
        return None
    return read_quantized(asked.made, asked.stored, asked.texts, asked.case.device, how)
