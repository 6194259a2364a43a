"""Both passes: what each format costs each unit, and whole recipes of the frontier."""

import logging
import math
from dataclasses import replace
from pathlib import Path

from harness.artifacts import (
    LEFT,
    Frontier,
    MadeFrom,
    Point,
    Sensitivities,
    digest_of,
    load,
    made_from,
    record_digest,
    save,
)
from harness.errors import RunDirectoryError
from harness.garbage import collect
from harness.tuning.choosing import frontier_of
from harness.tuning.passing import divergences
from harness.tuning.work import Work, costs_of

SENSITIVITIES_FILE = "sensitivities.json"
FRONTIER_FILE = "frontier.json"
_TO_SHOW, _TO_TRY = 8, 24
"""Recipes of a frontier that are measured as a whole: beside the one of a budget, and where any of
them may be put to the gate."""
_ADVICE = "Delete the file: it is measured again."
_log = logging.getLogger("harness.tune")


def sensitivities_of(work: Work) -> Sensitivities:
    """Return what each format costs each unit, measured unless it was before."""
    path = work.folder / SENSITIVITIES_FILE
    if _is_made_from(path, work.settings):
        _log.info("tune: sensitivities were measured before")
        return load(Sensitivities, path, advice=_ADVICE)
    options = work.options
    _log.info("tune: %d units, %d variants", len(work.space.units), len(options))
    batches_BT = work.texts.batches(work.texts.sensing)
    variants = [{unit: name} for unit, name in options]
    klds, floor = divergences(work.tuned, work.space, batches_BT, variants)
    collect()
    pairs = [(max(one.kld, 0.0), one.stderr) for one in klds]
    found = Sensitivities(
        units=costs_of(work, dict(zip(options, pairs, strict=True))),
        num_texts=len(work.texts.sensing),
        num_tokens=work.num_tokens,
        floor=floor,
    )
    save(found, path, made_from=work.settings)
    return found


def frontier_of_recipes(work: Work, found: Sensitivities) -> Frontier:
    """Return the frontier, with recipes measured as a whole on other texts."""
    path = work.folder / FRONTIER_FILE
    capacity = work.typed.goal.capacity(found.num_weights)
    theirs = {
        "sensitivities": record_digest(work.folder / SENSITIVITIES_FILE) or "",
        "goal": digest_of(work.typed.goal.bits),
    }
    if _is_made_from(path, theirs):
        _log.info("tune: the frontier was measured before")
        return load(Frontier, path, advice=_ADVICE)
    frontier = frontier_of(found, capacity)
    chosen = _to_measure(frontier, capacity)
    _log.info("tune: %d points, %d recipes are measured", len(frontier.points), len(chosen))
    batches_BT = work.texts.batches(work.texts.proving)
    variants = [{unit: name for unit, name in one.choice.items() if name != LEFT} for one in chosen]
    klds, _ = divergences(work.tuned, work.space, batches_BT, variants)
    collect()
    known = {
        id(one): replace(one, measured=max(kld.kld, 0.0), stderr=kld.stderr)
        for one, kld in zip(chosen, klds, strict=True)
        if kld.kld < float("inf")
    }
    frontier = replace(
        frontier,
        points=tuple(known.get(id(one), one) for one in frontier.points),
        uniform=tuple(known.get(id(one), one) for one in frontier.uniform),
        num_texts=len(work.texts.proving),
        num_tokens=sum(map(len, work.texts.proving)),
    )
    save(frontier, path, made_from=theirs)
    return frontier


def _is_made_from(path: Path, settings: MadeFrom) -> bool:
    """Tell whether a file was made of just this.

    Raises:
        RunDirectoryError: it was changed since.
    """
    try:
        found = made_from(path)
    except RunDirectoryError as error:
        message = f"'{path}' was changed after harness wrote it. {_ADVICE}"
        raise RunDirectoryError(message) from error
    if found is None and path.exists():
        _log.info("tune: '%s' is damaged and is measured again", path)
    return found == settings


def _to_measure(frontier: Frontier, capacity: float) -> list[Point]:
    """Return the uniform recipes, the one that was asked for, and points at even distances."""
    points = frontier.points
    count = min(len(points), _TO_TRY if math.isinf(capacity) else _TO_SHOW)
    last = len(points) - 1
    chosen = {round(index * last / max(count - 1, 1)) for index in range(count)}
    fitting = [index for index, one in enumerate(points) if one.num_bits <= capacity]
    chosen |= {max(fitting)} if fitting else set()
    uniform = [one.choice for one in frontier.uniform]  # one of them may be the frontier's too
    others = (points[index] for index in sorted(chosen))
    return [*frontier.uniform, *(one for one in others if one.choice not in uniform)]
