"""How wrong may a weight's scale be until `harness verify` says so? Prints a table.

    python -m scripts.scale_table CHECKPOINT... --source DIR [--every 10]
        [--factors 0.97,0.98,0.985,1.015,1.02,1.03]

CHECKPOINT is one that harness made of DIR, in NVFP4 or FP8. A copy has the scale of each tenth
weight multiplied with a factor, and the share of these that `weights-near-source` names is shown;
before that, how many it names of the weights as they are, which are none that are wrong.
"""

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import load_file, save_file

from harness.verify import verify

FACTORS = "0.97,0.98,0.985,1.015,1.02,1.03"
SCALES = (".weight_scale_2", ".weight_scale")


def main() -> int:
    """Print a row for each checkpoint."""
    parser = argparse.ArgumentParser()
    parser.add_argument("checkpoints", nargs="+", type=Path)
    parser.add_argument("--source", type=Path, required=True)
    parser.add_argument("--every", type=int, default=10)
    parser.add_argument("--factors", default=FACTORS)
    typed = parser.parse_args()
    factors = [float(one) for one in typed.factors.split(",")]
    heads = ["checkpoint", "weights", "false", *(f"x {one}, found" for one in factors)]
    print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    for checkpoint in typed.checkpoints:
        scales = list(scales_of(checkpoint))
        chosen = scales[:: typed.every]
        found = [num_found(checkpoint, typed.source, set(), 1.0)]
        found += [num_found(checkpoint, typed.source, set(chosen), one) for one in factors]
        shares = [f"{count / len(chosen):.0%}" for count in found[1:]]
        print(f"| {' | '.join([str(checkpoint), str(len(scales)), str(found[0]), *shares])} |")
    return 0


def scales_of(checkpoint: Path) -> Iterator[str]:
    """Yield the names of scales that are one number for a whole weight."""
    for file in sorted(checkpoint.glob("*.safetensors")):
        with safe_open(file, "pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118  # it is no dict
                if name.endswith(SCALES) and not tensors.get_slice(name).get_shape():
                    yield name


def num_found(checkpoint: Path, source: Path, scales: set[str], factor: float) -> int:
    """Return how many weights of a copy with these scales changed are said not to be near."""
    with tempfile.TemporaryDirectory(dir=checkpoint.parent) as folder:
        copy = Path(folder)
        for file in checkpoint.iterdir():
            if file.suffix == ".safetensors":
                tensors = load_file(file)
                changed = {name: tensors[name] * factor for name in scales & tensors.keys()}
                save_file(tensors | changed, copy / file.name, metadata={"format": "pt"})
            elif file.name != "harness.json":  # which has the hashes
                (copy / file.name).write_bytes(file.read_bytes())
        checks = verify(copy, source=source).checks
    return next(one.num_faulty for one in checks if one.id == "weights-near-source")


if __name__ == "__main__":
    raise SystemExit(main())
