"""Measure the smoke comparison on the canary: correct formats, a repeated baseline, and faults.

    python -m scripts.smoke_table --checkpoints DIR [--only NAME ...] [--json FILE] [--record]

DIR holds one run directory a format, as `harness quantize --out DIR/FORMAT` leaves them. Each line
is one candidate: what the limits of harness/smoke/limits.py are compared with, and which checks
failed. The limits are chosen to lie far from both ends; this is the evidence.
"""

import argparse
import json
import math
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from harness import shipped
from harness.artifacts import EngineSpec, Probe, SmokeReport, to_json
from harness.errors import HarnessError
from harness.recipe import load_smoke
from harness.score import probe
from harness.serve import serve
from harness.smoke import compare
from scripts import ledger

ENGINE = EngineSpec(name="reference", numerics="declared", device="cpu", dtype="float32")
SMOKE = load_smoke("canary")
GOOD = ("nvfp4", "nvfp4_experts_only", "w4a16_nvfp4", "fp8", "nvfp4_kv_fp8")
COLUMNS = (
    *("smoke-nll", "smoke-nll-passage", "smoke-top-1", "smoke-kld"),
    *("smoke-known-answers", "smoke-known-answers-sampled", "smoke-repetition"),
    *("smoke-compression", "smoke-dominance", "smoke-length", "smoke-garbage"),
)
Tensors = dict[str, Tensor]


class Fault(NamedTuple):
    """A way to spoil a checkpoint that still loads."""

    base: str
    spoil: Callable[[Tensors], None]


def _named(tensors: Tensors, *, within: str, suffix: str) -> Iterator[str]:
    return (name for name in sorted(tensors) if within in name and name.endswith(suffix))


def _scaled(within: str, suffix: str, factor: float) -> Callable[[Tensors], None]:
    def spoil(tensors: Tensors) -> None:
        for name in _named(tensors, within=within, suffix=suffix):
            tensors[name] = (tensors[name].float() * factor).to(tensors[name].dtype)

    return spoil


def _set(within: str, suffix: str, value: float) -> Callable[[Tensors], None]:
    def spoil(tensors: Tensors) -> None:
        for name in _named(tensors, within=within, suffix=suffix):
            tensors[name] = torch.full_like(tensors[name], value)

    return spoil


def _nibbles(within: str) -> Callable[[Tensors], None]:
    def spoil(tensors: Tensors) -> None:
        for name in _named(tensors, within=within, suffix=".weight"):
            if tensors[name].dtype == torch.uint8:
                tensors[name] = (tensors[name] << 4) | (tensors[name] >> 4)

    return spoil


def _permuted(within: str) -> Callable[[Tensors], None]:
    """Put the block scales of a matrix into the opposite order."""

    def spoil(tensors: Tensors) -> None:
        for name in _named(tensors, within=within, suffix=".weight_scale"):
            tensors[name] = tensors[name].view(torch.uint8).flip(0, 1).contiguous()
            tensors[name] = tensors[name].view(torch.float8_e4m3fn)

    return spoil


def _next_expert(within: str, suffix: str) -> Callable[[Tensors], None]:
    """Give each expert what belongs to the next one."""

    def spoil(tensors: Tensors) -> None:
        names = list(_named(tensors, within=within, suffix=suffix))
        values = [tensors[name].clone() for name in names]
        for name, value in zip(names, [*values[1:], values[0]], strict=True):
            tensors[name] = value

    return spoil


_ALL, _LAYER, _EXPERT = ".mlp.experts.", ".layers.1.mlp.experts.", ".layers.1.mlp.experts.3."
FAULTS: Mapping[str, Fault] = {
    "expert input scales lost (1e-6)": Fault("nvfp4", _set(_ALL, ".input_scale", 1e-6)),
    "gate scale_2 x 2, all experts": Fault("nvfp4", _scaled(_ALL, "gate_proj.weight_scale_2", 2.0)),
    "gate scale_2 x 2, one layer": Fault("nvfp4", _scaled(_LAYER, "gate_proj.weight_scale_2", 2.0)),
    "down scale_2 x 2, all experts": Fault("nvfp4", _scaled(_ALL, "down_proj.weight_scale_2", 2.0)),
    "weight scale_2 of the next expert": Fault("nvfp4", _next_expert(_ALL, ".weight_scale_2")),
    "codes of the next expert": Fault("nvfp4", _next_expert(_LAYER, "down_proj.weight")),
    "nibbles swapped": Fault("nvfp4", _nibbles("")),
    "nibbles swapped, one layer's experts": Fault("nvfp4", _nibbles(_LAYER)),
    "nibbles swapped, one expert": Fault("nvfp4", _nibbles(_EXPERT)),
    "block scales permuted": Fault("nvfp4", _permuted("")),
    "block scales permuted, one layer": Fault("nvfp4", _permuted(".layers.1.")),
    "block scales permuted, one expert": Fault("nvfp4", _permuted(_EXPERT)),
    "weight scales x 2, one layer": Fault("fp8", _scaled(".layers.1.mlp.", ".weight_scale", 2.0)),
    "input scales / 100, attention": Fault("fp8", _scaled(".self_attn.", ".input_scale", 0.01)),
    "k_scale / 100": Fault("nvfp4_kv_fp8", _scaled(".self_attn.", ".k_scale", 0.01)),
    "v_scale / 100": Fault("nvfp4_kv_fp8", _scaled(".self_attn.", ".v_scale", 0.01)),
}


@contextmanager
def spoiled(checkpoint: Path, fault: Fault) -> Iterator[Path]:
    """Copy a checkpoint and spoil the copy."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "checkpoint"
        shutil.copytree(checkpoint, copy)
        for shard in copy.glob("*.safetensors"):
            tensors = load_file(shard)
            fault.spoil(tensors)
            save_file(tensors, shard, metadata={"format": "pt"})
        yield copy


def ask(folder: Path, arm: str) -> tuple[Probe, float]:
    """Serve a folder and put the smoke set to it; return the answers and the seconds."""
    started = time.perf_counter()
    with serve(ENGINE, folder) as served:
        return probe(served, SMOKE, arm=arm), time.perf_counter() - started


def line(name: str, report: SmokeReport, seconds: float) -> str:
    """Return one row of the table."""
    by_name = {measure.name: measure for measure in report.measures}
    cells = []
    for column in COLUMNS:
        measure = by_name.get(column)
        value = math.nan if measure is None else measure.difference
        cells.append("-" if math.isnan(value) else f"{value:.3f}")
    failed = ", ".join(check.id.removeprefix("smoke-") for check in report.errors) or "none"
    return f"| {name} | {' | '.join(cells)} | {failed} | {seconds:.0f} s |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--checkpoints", type=Path, required=True)
    parser.add_argument("--only", nargs="*")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--record", action="store_true", help="Add a row to the ledger.")
    arguments = parser.parse_args()
    model = shipped.canary() / "model"
    baseline, seconds = ask(model, "baseline")
    print(f"the baseline's probe took {seconds:.1f} s", flush=True)
    print(
        f"| candidate | {' | '.join(c.removeprefix('smoke-') for c in COLUMNS)} | failed | time |"
    )
    print("|---" * (len(COLUMNS) + 3) + "|", flush=True)
    reports = {}
    for name, candidate_folder in _candidates(arguments.checkpoints, model).items():
        if arguments.only and name not in arguments.only:
            continue
        try:
            with candidate_folder as folder:
                candidate, seconds = ask(folder, "candidate")
        except HarnessError as error:
            print(f"| {name} | the engine refuses it: {str(error)[:120]} |", flush=True)
            continue
        reports[name] = compare(SMOKE, baseline, candidate, numerics=ENGINE.numerics)
        print(line(name, reports[name], seconds), flush=True)
    if arguments.json:
        values = {name: to_json(report) for name, report in reports.items()}
        arguments.json.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    if arguments.record:
        ledger.append(
            "Smoke on the canary: correct formats and planted faults, reference engine",
            command="python -m scripts.smoke_table --checkpoints DIR --record",
            values={name: _in_words(report) for name, report in reports.items()},
        )


def _in_words(report: SmokeReport) -> str:
    kld = next((m.difference for m in report.measures if m.name == "smoke-kld"), math.nan)
    failed = ", ".join(check.id.removeprefix("smoke-") for check in report.errors) or "none"
    return f"KLD {kld:.4f} nats, failed: {failed}"


def _candidates(runs: Path, model: Path) -> dict[str, AbstractContextManager[Path]]:
    good = {name: nullcontext(runs / name / "checkpoint") for name in GOOD}
    bad = {name: spoiled(runs / f.base / "checkpoint", f) for name, f in FAULTS.items()}
    return {"the baseline again": nullcontext(model), **good, **bad}


if __name__ == "__main__":
    main()
