"""The whole table: every configuration asked, and every fault planted."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from tests.published import build, faults
from tests.published.asking import ENGINES, Answer, ask_plan, ask_verify, is_found
from tests.published.cut import cut

CUT = Path(__file__).with_name("configurations.jsonl")
HEAD = "| model | declared | verify | " + " | ".join(ENGINES)
HEAD += " | faults found | gate --plan |"


class Model(NamedTuple):
    """A configuration, cut."""

    name: str
    config: Mapping[str, Any]
    sidecar: Mapping[str, Any]


class Looked(NamedTuple):
    """What a planted fault led to."""

    check: str
    """The finding that has to name it."""
    wrong: str
    """What was wrong with the answer; nothing where the finding names it."""


@dataclass(frozen=True)
class Row:
    """What was answered about one configuration."""

    name: str
    declared: str
    alone: Answer
    engines: Mapping[str, Answer]
    plan: Answer
    faults: Mapping[str, Looked]
    """By the fault that was planted."""

    @property
    def cells(self) -> list[str]:
        """What the table says; the last is the gate's, which depends on the engine beside it."""
        found = sum(not looked.wrong for looked in self.faults.values())
        return [
            self.name.replace("--", "/"),
            self.declared,
            self.alone.word,
            *(answer.word for answer in self.engines.values()),
            f"{found} of {len(self.faults)}" if self.faults else "-",
            self.plan.word.replace("not read", "not served").replace("read", "planned"),
        ]


def stored() -> list[Model]:
    """Return the configurations that are kept here."""
    lines = CUT.read_text(encoding="utf-8").splitlines()
    return [Model(**json.loads(line)) for line in lines]


def read_folder(folder: Path) -> Iterator[Model]:
    """Yield what declares a quantization: `NAME_config.json` files, or folders of models."""
    for path in sorted([*folder.glob("*_config.json"), *folder.glob("*/config.json")]):
        is_folder = path.name == "config.json"
        name = path.parent.name if is_folder else path.name.removesuffix("_config.json")
        if name.endswith("_hf_quant"):
            continue
        beside = path.with_name(
            "hf_quant_config.json" if is_folder else f"{name}_hf_quant_config.json"
        )
        sidecar = json.loads(beside.read_text(encoding="utf-8")) if beside.is_file() else {}
        small = cut(json.loads(path.read_text(encoding="utf-8")), sidecar)
        if small["config"]:
            yield Model(name, small["config"], small["sidecar"])


def row_of(model: Model, work: Path) -> Row:
    """Ask all about one configuration, in folders below `work`."""
    built = build.build(model.config, model.sidecar)
    folder = build.write(built, work / "checkpoint")
    source = build.write(build.unquantized(model.config, model.sidecar), work / "source")
    alone = ask_verify(folder)
    return Row(
        name=model.name,
        declared=built.declared.what,
        alone=alone,
        engines={engine: ask_verify(folder, engine) for engine in ENGINES},
        plan=ask_plan(folder, source, work / "store"),
        faults=looked_for(built, work / "damaged") if alone.code != 2 else {},
    )


def looked_for(built: build.Built, folder: Path, engine: str | None = None) -> dict[str, Looked]:
    """Plant each fault and return what it led to."""
    looked = {}
    for one in faults.planted(built):
        found, answer = is_found(one, folder, engine)
        wanted = f"wanted {one.check} about {one.named}"
        wrong = "" if found else f"{wanted}, got {answer.word}"
        looked[one.fault] = Looked(one.check, wrong)
    return looked


def table(rows: Sequence[Row]) -> str:
    """Return the models and the faults in markdown."""
    models = Counter((fault, one.check) for row in rows for fault, one in row.faults.items())
    lines = [
        HEAD,
        "|---" * (HEAD.count("|") - 1) + "|",
        *(f"| {' | '.join(row.cells)} |" for row in rows),
    ]
    lines += ["", "| planted fault | finding | models |", "|---|---|---|"]
    lines += [f"| {fault} | `{check}` | {number} |" for (fault, check), number in models.items()]
    return "\n".join(lines)
