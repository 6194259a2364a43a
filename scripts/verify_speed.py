"""How fast and how large `harness verify` is, beside a plain sequential read of the same files.

    python -m scripts.verify_speed --gib 4 --record
    python -m scripts.verify_speed --gib 1 --with-source --record

Writes a checkpoint of few, large NVFP4 layers of random values (or of real rounding, with
`--with-source`, where a bfloat16 source lies beside it), then takes turns: plain read, verify
without a manifest, verify with one (which asks for the hash of each file); first from the page
cache, then from the disk, the cache of these files dropped before each turn. A comparison with the
source is held against a plain read of both. Each measurement is a process of its own; the fastest
of three counts. Peak memory is shown beside what the imports alone took.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import save_file

from harness.export.read_back import joined, read_file
from harness.formats import get_format
from scripts import ledger

ROWS, WIDTH = 8192, 8192
PLAIN_BYTES = 1 << 20
TURNS = 3
LAYER_BYTES = ROWS * WIDTH // 2 + ROWS * WIDTH // 16
SHARD_LAYERS = 16


def make(folder: Path, gib: float, source: Path | None) -> None:
    """Write the checkpoint, and the source if one is asked for."""
    folder.mkdir()
    seed = torch.Generator().manual_seed(0)
    num_layers = max(int(gib * (1 << 30) / LAYER_BYTES), 1)
    for first in range(0, num_layers, SHARD_LAYERS):
        shard = f"model-{first:05}.safetensors"
        tensors: dict[str, torch.Tensor] = {}
        originals: dict[str, torch.Tensor] = {}
        for layer in range(first, min(first + SHARD_LAYERS, num_layers)):
            name = f"model.layers.{layer}.mlp.down_proj"
            if source is None:
                stored = random_layer(seed)
            else:
                weight = torch.randn(ROWS, WIDTH, generator=seed).bfloat16()
                originals[f"{name}.weight"] = weight
                amax = float(weight.abs().max())
                stored = get_format("nvfp4").quantize_weight(weight, amax=amax)
                stored["input_scale"] = torch.tensor(0.01)
            tensors |= {f"{name}.{leaf}": tensor for leaf, tensor in stored.items()}
        save_file(tensors, folder / shard)
        if source is not None:
            source.mkdir(exist_ok=True)
            save_file(originals, source / shard)
            (source / "config.json").write_text("{}", encoding="utf-8")
    layers = (f"model.layers.{n}.mlp.down_proj" for n in range(num_layers))
    leaves = ("weight", "weight_scale", "weight_scale_2", "input_scale")
    weight_map = {
        f"{name}.{leaf}": f"model-{number - number % SHARD_LAYERS:05}.safetensors"
        for number, name in enumerate(layers)
        for leaf in leaves
    }
    index = json.dumps({"weight_map": weight_map})
    (folder / "model.safetensors.index.json").write_text(index, encoding="utf-8")
    section = {"quant_algo": "NVFP4", "quant_method": "modelopt", "ignore": []}
    config = json.dumps({"quantization_config": section})
    (folder / "config.json").write_text(config, encoding="utf-8")


def random_layer(seed: torch.Generator) -> dict[str, torch.Tensor]:
    """Return a layer of random codes, as cheap to make as it is to read."""
    block = torch.rand(ROWS, WIDTH // 16, generator=seed) + 0.5
    return {
        "weight": torch.randint(1, 256, (ROWS, WIDTH // 2), dtype=torch.uint8, generator=seed),
        "weight_scale": block.to(torch.float8_e4m3fn),
        "weight_scale_2": torch.tensor(0.01),
        "input_scale": torch.tensor(0.01),
    }


def seal(folder: Path) -> None:
    """Write the manifest as harness's export does, which makes verify hash every tensor."""
    meant = {}
    for path in weight_files(folder):
        found = read_file(path)
        meant[path.name] = joined(found.header, found.xxh3)
    manifest = {"sha256": dict.fromkeys(meant, ""), "tensors_xxh3": meant}
    (folder / "harness.json").write_text(json.dumps(manifest), encoding="utf-8")


def weight_files(*folders: Path | None) -> list[Path]:
    """Return the weight files of folders, in order."""
    return [path for folder in folders if folder for path in sorted(folder.glob("*.safetensors"))]


def read_plainly(paths: Sequence[Path]) -> float:
    """Read files once, in order; return the seconds."""
    buffer = bytearray(PLAIN_BYTES)
    start = time.perf_counter()
    for path in paths:
        with path.open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass
    return time.perf_counter() - start


def drop_from_cache(paths: Sequence[Path]) -> None:
    """Make the next read of files come from the disk."""
    for path in paths:
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


class Turn(NamedTuple):
    """One measurement."""

    seconds: float
    imports_mib: float
    """Peak memory before anything was read."""
    peak_mib: float


def measure(what: str, folder: Path, source: Path | None, *, is_cold: bool) -> Turn:
    """Return the fastest of some measurements, each made in a process of its own."""
    command = [sys.executable, "-m", "scripts.verify_speed", "--turn", what, str(folder)]
    if source is not None:
        command += [str(source)]
    paths = weight_files(folder, source)
    turns = []
    for _ in range(TURNS):
        if is_cold:
            drop_from_cache(paths)
        else:
            read_plainly(paths)
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        turns.append(Turn(*json.loads(done.stdout.splitlines()[-1])))
    return min(turns)._replace(peak_mib=max(turn.peak_mib for turn in turns))


def turn(what: str, folder: Path, source: Path | None) -> None:
    """Do one measurement in this process and print it."""
    from harness.verify import verify  # noqa: PLC0415 -- its imports are not to be measured

    before = peak_mib()
    start = time.perf_counter()
    if what == "plain":
        seconds = read_plainly(weight_files(folder, source))
    else:
        report = verify(folder, source=source)
        seconds = time.perf_counter() - start
        if report.errors:
            sys.exit(f"the checkpoint is meant to be good: {report.errors[0].message}")
    sys.stdout.write(json.dumps([seconds, before, peak_mib()]) + "\n")


def peak_mib() -> float:
    """Return this process's peak memory; getrusage would count the parent's."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024


def report_turns(folder: Path, source: Path | None) -> dict[str, str]:
    """Measure, print the table, and return it."""
    num_bytes = sum(path.stat().st_size for path in weight_files(folder))
    largest = ROWS * WIDTH // 2 / (1 << 20)
    values = {"files": f"{num_bytes / 1e9:.2f} GB, largest tensor {largest:.0f} MiB"}
    cases: list[tuple[str, bool, Path | None]] = [
        ("no manifest", False, None),
        ("manifest with hashes", True, None),
    ]
    if source is not None:
        cases.append(("--source, no manifest", False, source))
    for is_cold in (False, True):
        place = "from the disk" if is_cold else "from the page cache"
        for title, is_sealed, against in cases:
            (folder / "harness.json").unlink(missing_ok=True)
            if is_sealed:
                seal(folder)
            plain = measure("plain", folder, against, is_cold=is_cold)
            found = measure("verify", folder, against, is_cold=is_cold)
            num_read = sum(path.stat().st_size for path in weight_files(folder, against))
            values[f"{place}: {title}"] = (
                f"{num_read / found.seconds / 1e9:.2f} GB/s, "
                f"{plain.seconds / found.seconds:.0%} of a plain read's "
                f"{num_read / plain.seconds / 1e9:.2f} GB/s; "
                f"peak {found.peak_mib:.0f} MiB, {found.imports_mib:.0f} of it imports"
            )
            print(f"{place}: {title}: {values[f'{place}: {title}']}", flush=True)
    return values


def main() -> None:
    """Make the files, measure, and leave nothing behind."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gib", type=float, default=4.0, help="Size of the checkpoint.")
    parser.add_argument("--with-source", action="store_true", help="Compare with a source too.")
    parser.add_argument("--into", type=Path, default=None, help="Where to write; default: /tmp.")
    parser.add_argument("--record", action="store_true", help="Add a row to the ledger.")
    parser.add_argument("--turn", nargs="+", default=None, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.turn:
        what, folder, *rest = arguments.turn
        turn(what, Path(folder), Path(rest[0]) if rest else None)
        return
    with tempfile.TemporaryDirectory(dir=arguments.into) as root:
        folder = Path(root) / "checkpoint"
        source = Path(root) / "source" if arguments.with_source else None
        make(folder, arguments.gib, source)
        values = report_turns(folder, source)
    if arguments.record:
        options = f"--gib {arguments.gib:g}" + (" --with-source" if arguments.with_source else "")
        ledger.append(
            f"Speed of harness verify beside a plain sequential read, {os.cpu_count()} cores",
            command=f"python -m scripts.verify_speed {options} --record",
            values=values,
        )


if __name__ == "__main__":
    main()
