"""The chain: the same texts read by one model after the other, and where their answers part.

What parts is asked of neighbours. In this process both compute in float32 and in the same order, so
that next to nothing may differ. Other ranges, or a server that computes in bfloat16, let 4-bit
inputs fall on another side here and there: what that makes is measured, by reading once more with
the quantized model in bfloat16.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from harness.artifacts import Clue, EngineSpec, Hop, OriginStage
from harness.errors import HarnessError, ReasonCode
from harness.garbage import collect
from harness.localizing.case import Made, Unquantized
from harness.localizing.in_memory import AS_PLANNED, Arithmetic, rounded, running
from harness.localizing.reading import (
    Reach,
    Read,
    difference,
    first_layer,
    nll,
    other_weights,
    read,
)
from harness.quantize import Stored
from harness.serve.reference import serve_reference

_log = logging.getLogger("harness.localize")
SAME = 1e-4
"""Nats a token up to which the same arithmetic may differ."""
_ROUNDINGS = 3.0
"""Times the measured rounding up to which answers do not part."""

Texts = Mapping[str, Sequence[int]]


class Step(NamedTuple):
    """A place in the chain."""

    name: str
    what: str
    stages: tuple[OriginStage, ...] = ()


SOURCE = Step("source", "the unquantized model")
QUANTIZED = Step("quantized", "its weights and inputs rounded in memory, with ranges measured now")
RECORDED = Step(
    "recorded", "the same with the ranges that the run recorded", (OriginStage.CALIBRATION,)
)
FILES = Step(
    "files",
    "the reference engine on the checkpoint's files",
    (OriginStage.QUANTIZATION, OriginStage.EXPORT, OriginStage.LOADER),
)
EMULATED = Step(
    "emulated", "a server on the files, its emulation", (OriginStage.EXPORT, OriginStage.LOADER)
)
DEPLOYED = Step(
    "deployed", "the same server as it is deployed", (OriginStage.EXPORT, OriginStage.KERNEL)
)


class Chain:
    """Hops in order, each held against the last one that was read."""

    def __init__(self) -> None:
        """Begin with none."""
        self.hops: list[Hop] = []
        self.last: Read | None = None
        self.before: Read | None = None
        """What the last hop was held against; None where it read nothing."""
        self.is_read = False
        """Whether the last hop read anything."""
        self.rounding: float | None = None
        """Nats a token that bfloat16 costs the quantized model; None before it was measured."""

    def add(self, step: Step, found: Read, *, beside: Read | None = None, note: str = "") -> None:
        """Add a hop that was read, beside the last one or `beside`."""
        before = beside or self.last
        bound = self._bound(step)
        gap = difference(before, found) if before is not None else None
        is_broken = before is not None and gap is None and nll(before) is not None
        is_beyond = bound is not None and gap is not None and gap > bound
        parted = bool(step.stages) and (is_broken or is_beyond)
        layer = first_layer(before, found) if before is not None and parted else None
        hop = Hop(
            name=step.name,
            what=step.what,
            stages=step.stages,
            nll=nll(found),
            difference=gap,
            bound=bound,
            parted=parted,
            layer=layer,
            note=note,
        )
        said = "read" if gap is None else f"{gap:.3g} nats a token from the hop before"
        _log.info("localize: %s: %s", step.name, said)
        self.hops.append(hop)
        self.before, self.last, self.is_read = before, found, True

    def attempt(self, step: Step, make: Callable[[], Read]) -> None:
        """Add a hop, of a model that may be too large for this machine, or may be refused."""
        try:
            found = make()
        except HarnessError as error:
            if error.reason is ReasonCode.OUT_OF_MEMORY:
                self.skip(step, str(error))
            else:
                self.refused(step, str(error))
            return
        finally:
            collect()
        self.add(step, found)

    def repeat(self, step: Step, note: str) -> None:
        """Add a hop that is known to read what the last one did."""
        if self.last is None:
            self.skip(step, note)
        else:
            self.add(step, self.last, note=note)

    def refused(self, step: Step, why: str) -> None:
        """Add a hop at which nothing could be read, for it was refused."""
        self._without(step, why, looked=True)

    def skip(self, step: Step, why: str) -> None:
        """Add a hop that was not looked at."""
        self._without(step, why, looked=False)

    def other_weights(self) -> Iterator[Clue]:
        """Yield which weights the last hop, where it parts, holds otherwise than the one before."""
        if self.hops[-1].parted and self.before is not None and self.last is not None:
            for path in other_weights(self.before, self.last):
                message = f"{path} holds other values in the engine than its files give"
                yield Clue(stage=OriginStage.LOADER, subject=path, message=message)

    def _without(self, step: Step, why: str, *, looked: bool) -> None:
        self.before = None
        self.is_read = False
        hop = Hop(
            name=step.name,
            what=step.what,
            stages=step.stages,
            looked=looked,
            parted=looked and bool(step.stages),
            note=why,
        )
        self.hops.append(hop)

    def _bound(self, step: Step) -> float | None:
        """Return what rounding explains; None beside the source, or where it was not measured."""
        is_beside_source = all(hop.name == SOURCE.name for hop in self.hops if hop.looked)
        if is_beside_source or not step.stages:
            return None
        if step is FILES:
            return SAME
        return None if self.rounding is None else max(SAME, _ROUNDINGS * self.rounding)


def read_source(model: Unquantized, texts: Texts, device: str, reach: dict[str, float]) -> Read:
    """Read with the unquantized model; `reach` gets the largest inputs, by quantizer."""
    seen = Reach(model.inventory, reach)
    with running(model, device) as loaded, seen.of(loaded):
        return read(loaded, texts)


def read_quantized(
    made: Made, stored: Stored, texts: Texts, device: str, how: Arithmetic = AS_PLANNED
) -> Read:
    """Read with the model quantized in memory."""
    with rounded(made, stored, device, how) as model:
        return read(model, texts)


def read_files(folder: Path, texts: Texts, device: str, dtype: str = "float32") -> Read:
    """Read with the reference engine."""
    engine = EngineSpec(name="reference", numerics="declared", device=device, dtype=dtype)
    with serve_reference(engine, folder) as served:
        return read(served.model, texts)


def measure_rounding(chain: Chain, again: Callable[[], Read]) -> None:
    """Measure what bfloat16 costs; `again` reads in it what the last hop read in float32."""
    if chain.rounding is None and chain.is_read and chain.last is not None:
        chain.rounding = difference(chain.last, again())
        collect()
