"""What `harness doctor --format F` prints: where a format is loaded, and what is computed."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path

from harness.artifacts import EngineSpec, to_json
from harness.cli.console import Result
from harness.engines import Demands, Fate, Foretold
from harness.engines.foretold import (
    EXPERTS,
    EXPORTED,
    GENERATIONS,
    LINEAR,
    foretell,
    recorded,
    recorded_versions,
)
from harness.engines.sglang import TURNS, Place, foretell_sglang
from harness.errors import UsageError
from harness.recipe import shipped_formats
from harness.serve import foretell_served, resolve_engine

_COLUMNS = "{:<24} {:<16} {:<7} {:<8} {}"
_HEAD = ("engine", "GPU", "layers", "fate", "kernel, or why")
_READ = (
    "loaded: as declared; hidden: the kernel computes with unrounded inputs, and a run looks at",
    "the declared arithmetic besides; misread: taken for another algorithm, or left unquantized",
)


def foretell_format(name: str, vllm: Path | None = None) -> Result:
    """Say what becomes of a format: one that harness makes, or a `quant_algo` of others.

    Args:
        name: as typed.
        vllm: an environment whose vLLM is asked besides, on the GPU here.

    Raises:
        UsageError: nothing is known of the name.
        PrerequisiteError: there is no vLLM in that environment.
    """
    lines, values = [], []
    here = None if vllm is None else _installed(vllm)
    for algorithm in _algorithms(name):
        for mixed in (False, True):
            told = [
                *_told_here(here, algorithm, mixed=mixed),
                *_told_by_vllm(algorithm, mixed=mixed),
                *_told_by_sglang(algorithm, mixed=mixed),
            ]
            where = " inside MIXED_PRECISION" if mixed else ""
            lines += [f"{algorithm}{where}", _COLUMNS.format(*_HEAD), *_rows(told)]
            values += [
                {"engine": engine, "gpu": gpu, "mixed": mixed, "layers": to_json(one)}
                for engine, gpu, one in told
            ]
    return Result(text="\n".join([*lines, *_READ]), values=values)


def _algorithms(name: str) -> Sequence[str]:
    made = {one.name: one.schemes for one in shipped_formats()}
    if name in made:
        return made[name]
    if name.upper() in EXPORTED:
        return (name.upper(),)
    message = (
        f"--format '{name}' is no format that harness makes and no algorithm that was asked about. "
        f"Type one of: {', '.join((*made, *EXPORTED))}."
    )
    raise UsageError(message)


def _installed(vllm: Path) -> EngineSpec:
    asked = EngineSpec(
        name="vllm", numerics="deployed", device="auto", dtype="auto", place=str(vllm)
    )
    return resolve_engine(asked)


def _told_here(
    engine: EngineSpec | None, algorithm: str, *, mixed: bool
) -> Iterator[tuple[str, str, Foretold]]:
    """Yield what an installed vLLM says of the GPU here; a CPU build says nothing."""
    if engine is None:
        return
    one = frozenset({algorithm})
    demands = Demands(linears=one, experts=one, names_layers=mixed)
    for said in foretell_served(engine, demands):
        if said.fate is not Fate.UNKNOWN:
            yield f"vllm {engine.version}", "here", said


def _told_by_vllm(algorithm: str, *, mixed: bool) -> Iterator[tuple[str, str, Foretold]]:
    for version in reversed(recorded_versions()):
        for layers in (LINEAR, EXPERTS):
            for gpu in GENERATIONS:
                record = recorded(version, gpu)
                if record is not None:
                    one = foretell(record.answers, algorithm, layers=layers, mixed=mixed)
                    yield f"vllm {version}", gpu, one


def _told_by_sglang(algorithm: str, *, mixed: bool) -> Iterator[tuple[str, str, Foretold]]:
    """Yield what SGLang's sources say, with each release that changed it."""
    one = frozenset({algorithm})
    demands = Demands(linears=one, experts=one, names_layers=mixed)
    for version in reversed(TURNS):
        for layers in (LINEAR, EXPERTS):
            for gpu in GENERATIONS:
                major, minor = map(int, gpu.split("."))
                for said in foretell_sglang(demands, Place(version, (major, minor))):
                    if said.layers == layers:
                        yield f"sglang {version}", gpu, said


def _rows(told: Iterable[tuple[str, str, Foretold]]) -> Iterator[str]:
    """Yield a line for neighbouring generations that fare alike, in releases that do."""
    by_release = [
        (engine, tuple(_of_release(rows))) for engine, rows in groupby(told, key=lambda row: row[0])
    ]
    for (_, rows), group in groupby(by_release, key=lambda one: (one[0].split()[0], one[1])):
        engines = [engine for engine, _ in group]
        newest, oldest = engines[0], engines[-1]
        span = newest if newest == oldest else f"{oldest} to {newest.split()[1]}"
        for row in rows:
            yield _COLUMNS.format(span, *row)


def _of_release(told: Iterable[tuple[str, str, Foretold]]) -> Iterator[tuple[str, ...]]:
    for one, group in groupby(told, key=lambda row: row[2]):
        gpus = [gpu if gpu == "here" else f"sm_{gpu.replace('.', '')}" for _, gpu, _ in group]
        where = gpus[0] if len(gpus) == 1 else f"{gpus[0]} to {gpus[-1]}"
        fate = "hidden" if one.inputs == "hidden" else str(one.fate)
        yield where, one.layers, fate, one.kernel or one.why
