"""Look into a run: each hop of the chain, the ranges, the files, and what they say together."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

from harness.artifacts import CalibrationStats, Clue, Localization, Smoothing, save
from harness.calibrate import calibrate
from harness.errors import HarnessError, RejectedError
from harness.localizing.case import Case, Made, open_case
from harness.localizing.declared import declaration_clues
from harness.localizing.files import tensor_clues, weights_of_inputs
from harness.localizing.hops import (
    DEPLOYED,
    EMULATED,
    FILES,
    QUANTIZED,
    RECORDED,
    SOURCE,
    Chain,
    Texts,
    measure_rounding,
    read_files,
    read_quantized,
    read_source,
)
from harness.localizing.in_memory import IN_BFLOAT16, stored_of
from harness.localizing.ranges import independent, range_clues, reach_clues, same_ranges
from harness.localizing.records import ending_clues, plan_clues
from harness.localizing.servers import Asked, add_servers, engine_of
from harness.localizing.verdict import Evidence, grouped, named, names_in
from harness.models import load_tokenizer
from harness.preflight.engine import resolve_device
from harness.score.probe_prompts import SmokePrompts

LOCALIZATION_FILE = "localization.json"
RECORDS_FOLDER = "localization"
"""Of the logs of servers that were asked."""


class Machine(NamedTuple):
    """What is here to look with."""

    device: str = "auto"
    vllm: Path | None = None


_ANY = Machine()


def localize(run: Path, machine: Machine = _ANY) -> Localization:
    """Say where what the run in `run` ended with comes from, and write it there.

    Args:
        run: a run directory, however the run ended.
        machine: what is here to look with.

    Raises:
        UsageError: it is no run that made a checkpoint, or the device is not here.
        RunDirectoryError: it is at work, or its recipe cannot be read.
    """
    case = open_case(run, resolve_device(machine.device))
    look = _Look(run, case)
    look.at_making()
    look.at_files()
    look.at_servers(machine.vllm)
    found = look.concluded()
    save(found, run / LOCALIZATION_FILE)
    return found


class _Look:
    """What was found so far of one run."""

    def __init__(self, run: Path, case: Case) -> None:
        self._run, self._case = run, case
        self._chain = Chain()
        self._clues: list[Clue] = []
        self._unseen = list(case.unseen)
        self._is_compared = False
        """Whether every tensor and declaration was held against what was to be made."""
        self._ranges: CalibrationStats | None = None
        """Measured anew, with nothing of the run believed."""
        self._texts: Texts = _texts_of(case)

    def at_making(self) -> None:
        """Read the source, and the model quantized in memory."""
        case, chain, model = self._case, self._chain, self._case.model
        reach: dict[str, float] = {}
        if model is None:
            chain.skip(SOURCE, "the source is not here")
        else:
            read = partial(read_source, model, self._texts, case.device, reach)
            chain.attempt(SOURCE, read)
        if isinstance(model, Made):
            self._at_quantizing(model, reach)
        else:
            for step in (QUANTIZED, RECORDED):
                chain.skip(step, "nothing here says what was to be made")

    def _at_quantizing(self, made: Made, reach: Mapping[str, float]) -> None:
        case, chain = self._case, self._chain
        fresh = self._measured(made)
        if made.plan.algorithm.smoothing is not Smoothing.NONE:
            reach = {}  # ranges are those of smaller inputs than the source's
        self._ranges = independent(fresh, reach)
        self._clues += plan_clues(made, self._run, self._unseen)
        self._clues += ending_clues(case, fresh)
        if case.recorded is not None:
            self._clues += range_clues(made, case.recorded, fresh)
            self._clues += reach_clues(case.recorded.input_amax, reach)
        if weights_of_inputs(made):
            for step in (QUANTIZED, RECORDED):
                chain.skip(
                    step, f"{made.plan.algorithm}: this leaves no record to do it again from"
                )
            return
        if self._ranges is None:
            chain.skip(QUANTIZED, "no ranges could be measured anew")
        else:
            stored = stored_of(made, self._ranges, case.device)
            read = partial(read_quantized, made, stored, self._texts, case.device)
            chain.attempt(QUANTIZED, read)
            measure_rounding(chain, partial(read, IN_BFLOAT16))
        self._at_recorded(made)

    def _at_recorded(self, made: Made) -> None:
        recorded, chain, device = self._case.recorded, self._chain, self._case.device
        if recorded is None:
            chain.skip(RECORDED, "the run recorded no ranges")
            return
        if self._ranges is not None and same_ranges(recorded, self._ranges):
            chain.repeat(RECORDED, "the same ranges to the bit")
            return
        try:
            stored = stored_of(made, recorded, device)
        except RejectedError as error:
            chain.refused(RECORDED, str(error))
            return
        chain.attempt(RECORDED, lambda: read_quantized(made, stored, self._texts, device))

    def _measured(self, made: Made) -> CalibrationStats | None:
        """Run the recipe's calibration once more, in batches of the same size."""
        recipe, recorded = made.recipe, self._case.recorded
        tokens = (recorded and recorded.batch_tokens) or recipe.calibration.batch_tokens
        spec = replace(recipe.calibration, batch_tokens=tokens)
        recipe = replace(recipe, device=self._case.device, ranks=1, calibration=spec)
        try:
            return calibrate(recipe, made.source, made.inventory, made.plan)
        except HarnessError as error:
            self._unseen.append(f"ranges measured anew: {error}")
            return None

    def at_files(self) -> None:
        """Hold the files against what was to be made, and read with the reference engine."""
        case, chain, folder = self._case, self._chain, self._case.folder
        if folder is None:
            chain.skip(FILES, "the run has no checkpoint")
            return
        stats = case.recorded or self._ranges
        if isinstance(case.model, Made) and stats is not None:
            self._compare(case.model, stats, folder)
        read = partial(read_files, folder, self._texts, case.device)
        chain.attempt(FILES, read)
        measure_rounding(chain, partial(read, "bfloat16"))
        if not any(one.decisive for one in self._clues):
            self._clues += chain.other_weights()

    def _compare(self, made: Made, stats: CalibrationStats, folder: Path) -> None:
        try:
            self._clues += list(tensor_clues(made, stats, folder, self._case.device))
            self._is_compared = not weights_of_inputs(made)
        except RejectedError as error:
            self._unseen.append(f"the files beside what was to be made: {error}")
        self._clues += declaration_clues(made, folder)

    def at_servers(self, vllm: Path | None) -> None:
        """Ask a server for the same, first its emulation, then as it is deployed."""
        case, stats = self._case, self._case.recorded or self._ranges
        made = case.model if isinstance(case.model, Made) else None
        try:
            engine = engine_of(case, vllm)
            is_known = made is not None and not weights_of_inputs(made)
            stored = stored_of(made, stats, case.device) if made and stats and is_known else None
        except HarnessError as error:
            for step in (EMULATED, DEPLOYED):
                self._chain.skip(step, str(error))
            return
        records = self._run / RECORDS_FOLDER
        add_servers(self._chain, Asked(case, self._texts, engine, records, made, stored))

    def concluded(self) -> Localization:
        """Return all of it, with the stage that it names."""
        case, hops = self._case, tuple(self._chain.hops)
        layer = next((hop.layer for hop in hops if hop.parted), None)
        first = frozenset[str]()
        if layer is not None and case.model is not None:
            first = names_in(layer, case.model.inventory)
        clues = grouped(self._clues, first)
        evidence = Evidence(hops, clues, case.side.ending, self._is_compared)
        stage, sentence = named(evidence)
        return Localization(
            stage=stage,
            sentence=sentence,
            hops=hops,
            clues=clues,
            unseen=tuple(self._unseen),
            ending=case.side.ending,
            num_tokens=sum(len(tokens) - 1 for tokens in self._texts.values()),
        )


def _texts_of(case: Case) -> Texts:
    """Return the passages of the smoke set, in tokens of the source or else of the checkpoint."""
    folder = case.model.source.path if case.model is not None else case.folder
    if folder is None:
        return {}
    prompts = case.prompts
    tokens = SmokePrompts(load_tokenizer(folder), prompts, max_length=prompts.max_model_len)
    return {one.id: tokens.passage(one.text) for one in prompts.passages}
