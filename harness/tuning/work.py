"""What tuning starts from: everything that was typed, checked before a weight is read."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from harness import doors
from harness.artifacts import LEFT, MadeFrom, OptionCost, UnitCosts, digest_of
from harness.baselines import versions
from harness.calibrate import data_digest
from harness.errors import RunDirectoryError, UsageError
from harness.preflight import Job, preflight
from harness.runs import plain_name
from harness.tuning.goal import Wanted
from harness.tuning.passing import Tuned
from harness.tuning.rules import recipe_for
from harness.tuning.texts import Texts, read_texts
from harness.tuning.units import Space, bits_of, space_of

RUNS_FOLDER = "runs"
LOCK_FILE = "tune.lock"


class Work(NamedTuple):
    """A tuning that is ready to start."""

    typed: Wanted
    job: Job
    space: Space
    texts: Texts
    folder: Path

    @property
    def tuned(self) -> Tuned:
        """Return the model, as a pass takes it."""
        return Tuned(self.job.recipe, self.job.source, self.job.inventory, self.folder)

    @property
    def options(self) -> list[tuple[str, str]]:
        """Return each unit with each of its formats."""
        return [(unit.name, name) for unit in self.space.units for name in unit.options]

    @property
    def num_tokens(self) -> int:
        """Return the tokens that sensitivities are measured on."""
        return sum(map(len, self.texts.sensing))

    @property
    def settings(self) -> MadeFrom:
        """Return the digests of what sensitivities are made from."""
        recipe, typed = self.job.recipe, self.typed
        return {
            "model": self.job.source.digest,
            "formats": digest_of(typed.formats, typed.algorithm, typed.may_leave),
            "units": digest_of([[unit.name, *unit.options] for unit in self.space.units]),
            "texts": digest_of(recipe.calibration, typed.tokens, data_digest(recipe.calibration)),
            "device": digest_of(recipe.device),
            "versions": digest_of(versions()),
        }


def prepared(typed: Wanted, folder: Path | None) -> Work:
    """Check all that can be checked before a weight is read."""
    request = typed.request
    if typed.goal.suite is not None:
        request = replace(request, suite=typed.goal.suite)
        typed = typed._replace(request=request)
    if request.layerwise is False or request.ranks != 1:
        message = "tuning runs layer by layer in one process. Leave out --whole and --ranks."
        raise UsageError(message)
    job = _job(typed, folder)
    tuned = Tuned(job.recipe, job.source, job.inventory, folder or Path())
    layers = tuned.streamed().prefix(0).removesuffix(".0.")
    space = space_of(typed, job, layers)
    texts = read_texts(job.recipe, job.source, typed.tokens)
    work = Work(typed, job, space, texts, folder or Path())
    if folder is None:
        name = f"{plain_name(job.recipe.model)}-tune-{digest_of(work.settings)[:8]}"
        work = work._replace(folder=Path("runs") / name)
    doors.check_apart(work.folder, [job.source.path])
    _check_folder(work.folder)
    _check_mixed(work)
    _check_bits(work)
    return work


def _check_folder(folder: Path) -> None:
    """Refuse a folder that is no tuning's.

    Raises:
        RunDirectoryError: it holds something else.
    """
    doors.check_folder(folder)
    present = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
    if present and LOCK_FILE not in present:
        message = f"'{folder}' holds files but no tuning. Name an empty folder with --run-dir."
        raise RunDirectoryError(message)


def _job(typed: Wanted, folder: Path | None) -> Job:
    """Return the job of the first format that the whole model can have.

    Raises:
        UsageError: it can have none; the first one's reason.
    """
    first: UsageError | None = None
    for name in typed.formats:
        request = replace(typed.request, qformat=name)
        try:
            return preflight(request, into=None if folder is None else folder / RUNS_FOLDER)
        except UsageError as error:
            first = first or error
    if first is None:
        raise AssertionError  # there is at least one format
    raise first


def _check_mixed(work: Work) -> None:
    """Refuse formats that no recipe or declaration can have side by side.

    Raises:
        UsageError: with the formats.
    """
    turns = list(work.space.choices) + [LEFT] * work.space.may_leave
    choice = {}
    for index, unit in enumerate(work.space.units):
        wished = turns[index % len(turns)]
        can_be = wished in unit.options or (wished == LEFT and work.space.may_leave)
        choice[unit.name] = wished if can_be else next(iter(unit.options))
    try:
        recipe_for(work.space, choice, work.job.inventory)
    except UsageError as error:
        message = f"--formats {','.join(turns)} cannot stand in one recipe: {error}"
        raise UsageError(message, reason=error.reason) from error


def ends_of(work: Work) -> tuple[float, float]:
    """Return the fewest and the most bits a weight of recipes that quantize anything."""
    costs = costs_of(work, dict.fromkeys(work.options, (0.0, 0.0)))
    total = sum(one.num_weights for one in costs)
    return _extreme(costs, 1) / total, -_extreme(costs, -1) / total


def _extreme(costs: Sequence[UnitCosts], sign: int) -> int:
    """Return the least sum of bits times `sign`, where not every unit is left as it is."""
    least, dearer = 0, []
    for unit in costs:
        signed = {name: sign * one.num_bits for name, one in unit.options.items()}
        least += (best := min(signed.values()))
        dearer += [bits - best for name, bits in signed.items() if name != LEFT]
    return least + min(dearer)


def _check_bits(work: Work) -> None:
    bits = work.typed.goal.bits
    if bits is None:
        return
    least, most = ends_of(work)
    if not round(least, 2) <= bits <= round(most, 2):
        message = (
            f"--bits {bits:g}: with --formats {','.join(work.typed.formats)}"
            f"{',none' * work.typed.may_leave} a weight takes {least:.2f} to {most:.2f} bits. Type "
            "a number between them, or other formats."
        )
        raise UsageError(message)


def costs_of(
    work: Work, klds: Mapping[tuple[str, str], tuple[float, float]]
) -> tuple[UnitCosts, ...]:
    """Return units with their options, of those whose output stayed finite."""
    units = []
    for unit in work.space.units:
        options = {
            name: OptionCost(num_bits=option.num_bits, kld=kld, stderr=stderr)
            for name, option in unit.options.items()
            for kld, stderr in [klds[unit.name, name]]
            if kld < float("inf")
        }
        if work.space.may_leave or not options:
            options[LEFT] = OptionCost(num_bits=bits_of(unit, LEFT), kld=0.0, stderr=0.0)
        units.append(UnitCosts(unit=unit.name, num_weights=unit.num_weights, options=options))
    return tuple(units)
