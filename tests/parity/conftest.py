"""Checkpoints of the same models by harness and by Model-Optimizer, on the same batches."""

import importlib.util
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from harness import shipped
from harness.artifacts import QuantPlan
from harness.calibrate import calibrate
from harness.calibrate.samples import make_batches, read_samples
from harness.export import export
from harness.models import open_source, read_inventory
from harness.quantize import quantize
from harness.recipe import Request, load_recipe, plan
from tests.stored import read_tensors
from tests.tiers import slow

FAMILIES = ("qwen3_5_moe", "qwen3_moe", "mixtral", "qwen3")
ASKED = (
    ("nvfp4", "fp8"),
    ("nvfp4", "fp8_cast"),
    ("nvfp4_experts_only", "none"),
    ("nvfp4_mlp_only", "fp8_cast"),
    ("w4a16_nvfp4", "none"),
    ("w4a16_nvfp4", "fp8"),
    ("fp8", "none"),
    ("fp8", "fp8"),
)
WIDE = (
    ("canary", "fp8_block", "none"),
    ("canary", "mxfp8", "fp8_cast"),
    ("canary", "mxfp4", "none"),
    ("canary", "w4a16_nvfp4_fp8_attention", "fp8_cast"),
    ("canary", "w4a16_nvfp4", "nvfp4"),
    ("canary", "fp8", "nvfp4_cast"),
    ("qwen3", "fp8_block", "none"),
    ("qwen3", "fp8_per_channel_per_token", "none"),
)
"""Formats whose blocks are wider than the tiny models, or for dense ones alone."""
CASES: tuple[tuple[str, str, str], ...] = tuple(
    (family, qformat, kv_cache)
    for family in FAMILIES
    for qformat, kv_cache in ASKED
    if (family, qformat) != ("qwen3", "nvfp4_experts_only")  # it has no experts
)
PEER = Path(__file__).with_name("peer.py")

Case = tuple[str, str, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """One checkpoint by each."""

    model: Path
    ours: Path
    theirs: Path
    plan: QuantPlan


class Peer(NamedTuple):
    """Everything that came of the one run of the peer."""

    pairs: dict[Case, Pair]
    decoded: dict[Case, Path]
    matrices: Path
    """Weights; the peer's tensors lie beside them with the suffix .peer."""
    casts: Path
    """The same of codes and exponents in MXFP4."""


def by_harness(model: Path, case: Case, text: Path, root: Path) -> tuple[Pair, dict[str, str]]:
    """The real chain; and the peer's job, with the very same batches."""
    _, qformat, kv_cache = case
    recipe = load_recipe(
        Request(
            model=str(model),
            qformat=qformat,
            kv_cache=kv_cache,
            calib_data=str(text),
            calib_size=12,
            calib_seq=64,
            experts="eager",
            device="cpu",
        )
    )
    source = open_source(str(model))
    inventory = read_inventory(source)
    chosen = plan(recipe, inventory)
    stats = calibrate(recipe, source, inventory, chosen)
    folder = root / "-".join(case)
    folder.mkdir()
    pair = Pair(model=model, ours=folder / "ours", theirs=folder / "theirs", plan=chosen)
    export(source, chosen, quantize(source, chosen, stats), into=pair.ours)
    batches = make_batches(
        read_samples(recipe.calibration, source), batch_tokens=recipe.calibration.batch_tokens or 0
    )
    save_file({f"{i:03d}": batch for i, batch in enumerate(batches)}, folder / "batches")
    job = {
        "model": str(model),
        "qformat": qformat,
        "kv_cache": kv_cache,
        "batches": str(folder / "batches"),
        "into": str(pair.theirs),
    }
    return pair, job


def write_matrices(path: Path) -> None:
    """Weights of every kind of bf16 value: ordinary, any bits, denormal, ties, zeros."""
    generator = torch.Generator().manual_seed(7)
    matrices: dict[str, Tensor] = {}
    for index in range(60):
        shape = (1 + index % 5, 16 * (1 + index % 4))
        bits = torch.randint(0, 2**16, shape, generator=generator, dtype=torch.int32)
        kinds = {
            "ordinary": torch.randn(shape, generator=generator).bfloat16(),
            "heavy": torch.randn(shape, generator=generator).pow(5).bfloat16(),
            "bits": bits.to(torch.uint16).view(torch.bfloat16).nan_to_num(0.0, 0.0, 0.0),
            "denormal": (bits % 512).to(torch.uint16).view(torch.bfloat16),
            "ties": torch.randint(-24, 25, shape, generator=generator).mul(112).bfloat16(),
        }
        kinds["ties"][0, 0] = 2688
        kinds["ordinary"][:, 16:32] = 0
        kinds["ordinary"][0, 3] = -0.0
        for kind, weight in kinds.items():
            weight[0, 1] = weight[0, 1] if weight.any() else 1
            matrices[f"{kind}{index}"] = weight
    save_file(matrices, path)


def write_casts(path: Path) -> None:
    """Codes and exponents of MXFP4: as in models, and with blocks too small for E4M3 beside."""
    generator = torch.Generator().manual_seed(8)
    tensors: dict[str, Tensor] = {}
    for index in range(20):
        shape = (1 + index % 5, 1 + index % 4)
        lowest = 118 - index  # of 20 powers in the last
        tensors[f"{index}.scales"] = torch.randint(
            lowest, 120, shape, generator=generator, dtype=torch.uint8
        )
        tensors[f"{index}.blocks"] = torch.randint(
            0, 256, (*shape, 16), generator=generator, dtype=torch.uint8
        )
    tensors["3.scales"][0, 0] = 0
    tensors["3.blocks"][0, 0] = 0
    save_file(tensors, path)


@pytest.fixture(scope="session")
@slow("nvidia-modelopt is imported, and makes 39 checkpoints")
def peer(
    tiny_models: dict[str, Path],
    calibration_jsonl: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Peer:
    """Run harness on every case, then the peer once on all of them."""
    if importlib.util.find_spec("modelopt") is None:
        pytest.skip("nvidia-modelopt is not installed (extra `parity`)")
    root = tmp_path_factory.mktemp("parity")
    models = {**tiny_models, "canary": shipped.canary() / "model"}
    pairs: dict[Case, Pair] = {}
    exports: list[dict[str, str]] = []
    for case in (*CASES, *WIDE):
        pairs[case], job = by_harness(models[case[0]], case, calibration_jsonl, root)
        exports.append(job)
    write_matrices(root / "matrices.safetensors")
    write_casts(root / "casts.safetensors")
    decoded = {case: root / f"{case[0]}.decoded" for case in pairs if case[1:] == ("nvfp4", "fp8")}
    jobs = {
        "exports": exports,
        "matrices": str(root / "matrices.safetensors"),
        "casts": str(root / "casts.safetensors"),
        "decode": [
            {"folder": str(pairs[case].ours), "into": str(into)} for case, into in decoded.items()
        ],
    }
    (root / "jobs.json").write_text(json.dumps(jobs), encoding="utf-8")
    command = [sys.executable, str(PEER), str(root / "jobs.json")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return Peer(pairs, decoded, root / "matrices.safetensors", root / "casts.safetensors")


@pytest.fixture(params=CASES, ids="-".join)
def pair(request: pytest.FixtureRequest, peer: Peer) -> Pair:
    return peer.pairs[request.param]


@pytest.fixture(params=WIDE, ids="-".join)
def wide_pair(request: pytest.FixtureRequest, peer: Peer) -> Pair:
    return peer.pairs[request.param]


@pytest.fixture
def tensors_of_pair(pair: Pair) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Ours and theirs; MTP tensors, which the peer's export drops, are left out."""
    ours = {name: t for name, t in read_tensors(pair.ours).items() if not name.startswith("mtp.")}
    return ours, read_tensors(pair.theirs)


@pytest.fixture(params=[case for case in CASES if case[1:] == ("nvfp4", "fp8")], ids="-".join)
def decoded_by_peer(
    request: pytest.FixtureRequest, peer: Peer
) -> tuple[Pair, dict[str, Tensor], dict[str, Tensor]]:
    """A pair, our tensors, and the weights that the peer decoded from our files."""
    pair = peer.pairs[request.param]
    return pair, read_tensors(pair.ours), load_file(peer.decoded[request.param])
