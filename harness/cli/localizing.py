"""What `harness localize` prints: the sentence, the hops, what else is off, what was not seen."""

from collections.abc import Iterator
from pathlib import Path

from harness.artifacts import Hop, Localization, to_json
from harness.cli.console import Result
from harness.localizing import Machine, localize

_MOST_CLUES = 12
"""--json has all of them."""


def localized(run: Path, device: str, vllm: Path | None) -> Result:
    """Look into a run, and say what was found."""
    found = localize(run, Machine(device, vllm))
    return Result(text="\n".join(_lines(found)), values=to_json(found))


def _lines(found: Localization) -> Iterator[str]:
    yield found.sentence
    yield ""
    yield f"the run: {found.ending}; {found.num_tokens} tokens read"
    yield f"  {'hop':<10} {'nats a token':>12} {'may be':>8}  what reads"
    for hop in found.hops:
        yield f"  {hop.name:<10} {_gap(hop):>12} {_number(hop.bound):>8}  {hop.what}"
        if hop.layer is not None:
            yield f"{'':<35}parts first in {hop.layer}"
        if hop.note:
            yield f"{'':<35}{'' if hop.looked else 'not looked at: '}{hop.note}"
    if found.clues:
        yield ""
        yield "what is not as it should be"
    for clue in found.clues[:_MOST_CLUES]:
        count = f" ({clue.count} such)" if clue.count > 1 else ""
        yield f"  {clue.stage}: {clue.message}{count}"
    if len(found.clues) > _MOST_CLUES:
        yield f"  and {len(found.clues) - _MOST_CLUES} more kinds, all of them with --json"
    if found.unseen:
        yield ""
        yield "not looked at, so nothing is said of it"
        yield from (f"  {what}" for what in found.unseen)


def _gap(hop: Hop) -> str:
    if not hop.looked:
        return "-"
    if hop.difference is None:
        return "parted" if hop.parted else "-"
    return _number(hop.difference) + (" *" if hop.parted else "")


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2g}"
