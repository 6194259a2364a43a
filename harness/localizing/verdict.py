"""Which stage it is: the first hop whose answers part, and the clues that explain it."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from harness.artifacts import Clue, Hop, Inventory, OriginStage
from harness.comparing.tensors import pattern_of

_ORDER = tuple(OriginStage)


def grouped(clues: Iterable[Clue], first: frozenset[str] = frozenset()) -> tuple[Clue, ...]:
    """Return clues in the order of stages, one for all whose names differ in numbers only.

    Args:
        clues: as they were found.
        first: modules and tensors of the layer that parted: of several alike, theirs is shown.
    """
    found: dict[tuple[OriginStage, str, bool], list[Clue]] = {}
    for one in clues:
        found.setdefault((one.stage, pattern_of(one.subject), one.decisive), []).append(one)
    groups = []
    for (stage, _, decisive), members in found.items():
        shown = next((one for one in members if _is_in(one.subject, first)), members[0])
        group = Clue(
            stage=stage,
            subject=shown.subject,
            message=shown.message,
            count=len(members),
            decisive=decisive,
        )
        groups.append((_ORDER.index(stage), not decisive, not _is_in(shown.subject, first), group))
    return tuple(group for *_, group in sorted(groups, key=lambda one: one[:3]))


def _is_in(subject: str, names: frozenset[str]) -> bool:
    """Return whether a name is one of `names`, or that of a tensor of a module among them."""
    return subject in names or subject.rpartition(".")[0] in names


def names_in(layer: str, inventory: Inventory) -> frozenset[str]:
    """Return what the files call the parts of a decoder layer, whose path in the model is given."""
    begin = f"{layer}."
    linears = (one.name for one in inventory.linears if one.parameter.tensor.startswith(begin))
    others = (name for path, name in inventory.others.items() if path.startswith(begin))
    return frozenset((*linears, *others))


class Evidence(NamedTuple):
    """All that was found."""

    hops: Sequence[Hop]
    clues: Sequence[Clue]
    """Grouped: in the order of stages, decisive ones first."""
    ending: str
    is_compared: bool
    """Whether every tensor and declaration was held against what was to be made."""


def named(found: Evidence) -> tuple[OriginStage | None, str]:
    """Return the stage that is named, and the sentence that says why."""
    parted = next((hop for hop in found.hops if hop.parted), None)
    sure = [clue for clue in found.clues if clue.decisive]
    if parted is None:
        return _of(sure[0]) if sure else (None, _nothing(found))
    # Where answers part, what is off there explains it; a mere suspicion does so too.
    there = [clue for clue in found.clues if clue.stage in parted.stages]
    there.sort(key=lambda clue: not clue.decisive)
    return _of(there[0]) if there else _unexplained(parted, found)


def _of(clue: Clue) -> tuple[OriginStage, str]:
    others = f" ({clue.count} such)" if clue.count > 1 else ""
    return clue.stage, f"{clue.stage}: {clue.message}{others}"


def _unexplained(parted: Hop, found: Evidence) -> tuple[OriginStage | None, str]:
    """Name the stage of a hop whose answers part though nothing else is off."""
    stage = parted.stages[-1]
    how = parted.note if parted.difference is None else f"{parted.difference:.3g} nats a token"
    says = f"{parted.what} parts from the hop before ({how})"
    if stage is OriginStage.CALIBRATION:
        return stage, f"{stage}: {says}"
    before = {hop.name for hop in found.hops[: found.hops.index(parted)] if hop.looked}
    missing = {
        "files": "" if found.is_compared else "the files beside what was to be made",
        "emulated": "" if "files" in before else "the reference engine on the same files",
        "deployed": "" if "emulated" in before else "the emulation of what is declared",
    }[parted.name]
    if missing:
        return None, f"not known: {says}, and {missing} could not be looked at"
    return stage, f"{stage}: {says}, while all before it is as it should be"


def _nothing(found: Evidence) -> str:
    read = [hop for hop in found.hops if hop.looked]
    if len(read) <= 1:
        return f"not known: nothing could be read beside anything else; the run: {found.ending}"
    cost = next((hop.difference for hop in read if hop.name == "quantized"), None)
    said = f"nothing parts from '{read[0].name}' to '{read[-1].name}'"
    if cost is None:
        return said
    return f"{said}; what the recipe itself costs is {cost:.3g} nats a token"
