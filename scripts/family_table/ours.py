"""What harness makes of a family: typed as a user types it, in every layout and both ways."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from typer.testing import CliRunner

from harness.calibrate.samples import make_batches, read_samples
from harness.cli import app
from harness.models import open_source
from harness.recipe import load_recipe
from harness.request import Request
from scripts.family_table.names import renamed, running_names

FORMATS = ("nvfp4", "fp8")
_SAMPLES, _TOKENS = 32, 64
_BYTES = 256


def write_calibration(path: Path) -> None:
    """Write samples of random bytes, all of one length."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, _BYTES, (_SAMPLES, _TOKENS), generator=generator)
    lines = (json.dumps({"input_ids": row}) for row in ids.tolist())
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_batches(model: Path, calibration: Path, into: Path) -> None:
    """Write the batches that harness calibrates this model with, for the peer."""
    recipe = load_recipe(
        Request(
            model=str(model),
            qformat="nvfp4",
            calib_data=str(calibration),
            calib_size=_SAMPLES,
            calib_seq=_TOKENS,
            device="cpu",
        )
    )
    samples = read_samples(recipe.calibration, open_source(str(model)))
    batches = make_batches(samples, batch_tokens=recipe.calibration.batch_tokens or 0)
    save_file({f"{index:03d}": batch for index, batch in enumerate(batches)}, into)


def quantize(model: Path, qformat: str, calibration: Path, out: Path, *way: str) -> dict[str, Any]:
    """Type `harness quantize` and return how it ended."""
    options = {
        "--model": model,
        "--qformat": qformat,
        "--calib-data": calibration,
        "--calib-size": _SAMPLES,
        "--calib-seq": _TOKENS,
        "--device": "cpu",
        "--experts": "eager",  # as the peer runs them: other products are other roundings
        "--out": out,
    }
    return _typed("quantize", *(word for pair in options.items() for word in pair), *way)


def verify(checkpoint: Path, source: Path) -> dict[str, Any]:
    """Type `harness verify --source` and return how it ended, with the checks that failed."""
    found = _typed("verify", checkpoint, "--source", source, "--json")
    try:
        checks = json.loads(found.pop("out"))["checks"]
    except (KeyError, ValueError):
        return found
    failed = [f"{one['id']}: {one['message']}" for one in checks if not one["passed"]]
    return found | ({"error": "; ".join(failed)[:500]} if found["error"] else {"warnings": failed})


def _typed(*words: object) -> dict[str, Any]:
    done = CliRunner().invoke(app, [str(word) for word in words])
    if done.exit_code == 0:
        return {"error": None, "out": done.stdout}
    told = [*done.stdout.splitlines(), *done.stderr.splitlines()]
    lines = [line for line in told if line.startswith(("harness: ", "FAILED", "NO-GO"))]
    said = lines[-1] if lines else repr(done.exception)
    return {"error": f"exit {done.exit_code}: {said}"[:500], "out": done.stdout}


def differences(one: Path, other: Path) -> list[str]:
    """Return the tensors in which two checkpoints of the same model differ."""
    return _differences(dict(_tensors(one)), dict(_tensors(other)))


def differences_of_layouts(one: Sequence[Path], other: Sequence[Path]) -> list[str]:
    """Return the experts' tensors in which checkpoints of two layouts differ.

    Each is the checkpoint and the model that it was made from. What is not quantized is copied
    under its source's name, and which plain layers engines fuse hangs on their names, which
    layouts spell differently.
    """
    left, right = (
        renamed(_quantized(dict(_tensors(checkpoint))), running_names(model))
        for checkpoint, model in (one, other)
    )
    names = [name for name in left.keys() | right.keys() if ".experts." in name]
    return _differences(*({n: one[n] for n in names if n in one} for one in (left, right)))


def _differences(left: dict[str, Tensor], right: dict[str, Tensor]) -> list[str]:
    both = sorted(left.keys() & right.keys())
    changed = [name for name in both if not same(left[name], right[name])]
    return sorted(left.keys() ^ right.keys()) + changed


def _quantized(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    layers = {name.rpartition(".")[0] for name in tensors if name.endswith(".weight_scale")}
    return {name: one for name, one in tensors.items() if name.rpartition(".")[0] in layers}


def same(one: Tensor, other: Tensor) -> bool:
    """Return whether two tensors are equal to the byte."""
    alike = one.dtype == other.dtype and one.shape == other.shape
    return alike and torch.equal(_bytes(one), _bytes(other))


def _bytes(tensor: Tensor) -> Tensor:
    return tensor.contiguous().reshape(-1).view(torch.uint8)


def _tensors(folder: Path) -> Iterator[tuple[str, Tensor]]:
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 -- no mapping
                yield name, file.get_tensor(name)


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """Return all tensors of a checkpoint."""
    return dict(_tensors(folder))
