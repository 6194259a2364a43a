"""All that is asked of one family, kept on disk so that what is there is not asked again."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from scripts.families.make import make
from scripts.family_table import engine, ours, parity
from scripts.family_table.answers import by_reference, prompts
from scripts.family_table.forks import Found, in_a_fork

UNQUANTIZED = "bf16"


class Place(NamedTuple):
    """Where the files of one family lie."""

    work: Path
    name: str

    @property
    def models(self) -> Path:
        """Return the folder of the tiny models of all families."""
        return self.work / "models"

    @property
    def folder(self) -> Path:
        """Return the folder of this family's results."""
        return self.work / "results" / self.name

    def model(self) -> Path:
        """Return the model as it was saved."""
        return self.models / self.name

    def published(self) -> Path:
        """Return the model as engines know it, who read another layout than is saved of some."""
        turned = self.models / f"{self.name}-transposed"
        return turned if turned.is_dir() else self.model()

    def checkpoint(self, qformat: str, layout: str = "saved", way: str = "layerwise") -> Path:
        """Return a checkpoint of harness."""
        run = f"{qformat}-{layout}-{way}"
        return self.work / "checkpoints" / self.name / run / "checkpoint"

    def peer(self, qformat: str) -> Path:
        """Return the checkpoint of Model-Optimizer."""
        return self.work / "peer" / self.name / qformat

    def batches(self) -> Path:
        """Return the token ids that both calibrate with."""
        return self.folder / "batches.safetensors"

    def result(self, what: str) -> Path:
        """Return the file of one answer."""
        return self.folder / f"{what}.json"

    def read(self, what: str) -> dict[str, Any] | None:
        """Return one answer, None where nothing was asked."""
        path = self.result(what)
        return json.loads(path.read_bytes()) if path.is_file() else None


def ask(place: Place, what: str, work: Callable[[], Found]) -> dict[str, Any]:
    """Return an answer; asked in a fork where it is not there."""
    known = place.read(what)
    if known is not None:
        return known
    place.folder.mkdir(parents=True, exist_ok=True)
    found = in_a_fork(work, place.folder / f"{what}.told")
    place.result(what).write_text(json.dumps(found, indent=1), encoding="utf-8")
    return found


def by_harness(place: Place, calibration: Path) -> None:
    """Quantize in every format, layout and way; verify; compare; ask the reference engine."""
    if ask(place, "made", lambda: _made(place, calibration))["error"]:
        return
    for qformat in ours.FORMATS:
        ask(place, f"quantized-{qformat}", partial(_quantized, place, qformat, calibration))
        _reference(place, qformat, place.checkpoint(qformat))
    _reference(place, UNQUANTIZED, place.model())


def _reference(place: Place, what: str, folder: Path) -> None:
    """Ask the reference engine in both types."""
    if folder.is_dir():
        ask(place, f"reference-{what}", partial(by_reference, folder, "float32"))
        ask(place, f"rounded-{what}", partial(by_reference, folder, "bfloat16"))


def _made(place: Place, calibration: Path) -> Found:
    layouts = make(place.name, place.models)
    place.folder.mkdir(parents=True, exist_ok=True)
    ours.write_batches(place.model(), calibration, place.batches())
    names = [path.name.removeprefix(place.name).lstrip("-") or "saved" for path in layouts]
    return {"error": None, "layouts": names}


def _quantized(place: Place, qformat: str, calibration: Path) -> Found:
    made = place.read("made") or {}
    found: dict[str, Any] = {"error": None, "ways": {}}
    plan = [("saved", "layerwise"), ("saved", "whole")]
    plan += [(layout, "layerwise") for layout in made["layouts"] if layout != "saved"]
    first = place.checkpoint(qformat)
    for layout, way in plan:
        model = place.model() if layout == "saved" else place.models / f"{place.name}-{layout}"
        checkpoint = place.checkpoint(qformat, layout, way)
        done = ours.quantize(model, qformat, calibration, checkpoint.parent, f"--{way}")
        told: dict[str, Any] = {"error": done["error"]}
        if done["error"] is None:
            checked = ours.verify(checkpoint, model)
            told |= {"verify": checked["error"], "warnings": checked.get("warnings", [])}
            different: list[str] = []
            if layout == "saved":
                different = ours.differences(first, checkpoint)
            elif layout != "mxfp4":  # which is another model, whose weights were rounded before
                both = (first, place.model()), (checkpoint, model)
                different = ours.differences_of_layouts(*both)
            told["different"] = different[:10]
        found["ways"][f"{layout} {way}"] = told
    return found


def compared(place: Place, qformat: str) -> dict[str, Any] | None:
    """Return our checkpoint beside the peer's, None where either is not there."""
    theirs = place.read(f"peer-{qformat}")
    if theirs is None or theirs["error"] or not place.checkpoint(qformat).is_dir():
        return None
    both = (place.checkpoint(qformat), place.peer(qformat))
    work = partial(parity.compare, place.model(), qformat, *both)
    return ask(place, f"parity-{qformat}", work)


def engine_jobs(place: Place) -> list[engine.Job]:
    """Return what vLLM is to load of this family."""
    folders = {UNQUANTIZED: place.published(), **{q: place.checkpoint(q) for q in ours.FORMATS}}
    return [
        engine.job_of(folder, place.result(f"vllm-{what}"), prompts())
        for what, folder in folders.items()
        if folder.is_dir()
    ]


def engine_peer_jobs(place: Place) -> list[engine.Job]:
    """Return the peer's checkpoints of what vLLM did not load of ours: it may load neither."""
    tokenizer = {"tokenizer": str(place.published())}
    return [
        engine.job_of(place.peer(qformat), place.result(f"vllm-peer-{qformat}"), prompts())
        | {"arguments": tokenizer}
        for qformat in ours.FORMATS
        if not_loaded(place, qformat) and place.peer(qformat).is_dir()
    ]


def not_loaded(place: Place, what: str) -> str | None:
    """Return why vLLM has not loaded a checkpoint; None where it has, or was not asked."""
    found = place.read(f"vllm-{what}")
    if found is None:
        return None
    return found["error"] or engine.rest_of(place.result(f"vllm-{what}"))


def peer_jobs(place: Place) -> list[dict[str, str]]:
    """Return what Model-Optimizer is to do with this family."""
    return [
        {
            "model": str(place.model()),
            "qformat": qformat,
            "batches": str(place.batches()),
            "into": str(place.peer(qformat)),
            "result": str(place.result(f"peer-{qformat}")),
        }
        for qformat in ours.FORMATS
        if place.batches().is_file()
    ]
